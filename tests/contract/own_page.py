"""A settings page that extends the real one: a new resource with a row of every kind."""

from pathlib import Path

from tests.harness.processes import ROOT, Processes

PAGE = """
import runpy

globals().update(runpy.run_path({page!r}))

ANYBODY = ["provider", "operator", "worker"]
SCHEMA = {{
    "title": {{"type": "string", "minlength": 1, "maxlength": 80, "required": True}},
    "lines": {{"type": "list", "maxlength": 4, "allows_duplicates": True,
              "schema": {{"type": "string", "maxlength": 10}}}},
    "readers": {{"type": "list", "allows_duplicates": False, "schema": {{"type": "string"}}}},
    "colour": {{"type": "dict", "schema": {{
        "name": {{"type": "string", "allowed": ["red", "green"]}},
        "shade": {{"type": "integer", "min": 0, "max": 9}},
    }}}},
    "count": {{"type": "integer", "min": 0}},
    "sealed": {{"type": "boolean", "readonly": True}},
}}
DOMAIN["tasks_notes"] = {{
    "schema": SCHEMA,
    "collection": {{"GET": {{"roles": ANYBODY}}, "POST": {{"roles": ["provider"]}}}},
    "item": {{
        "GET": {{"roles": ANYBODY}},
        "PATCH": {{"roles": ["provider"]}},
        "DELETE": {{"roles": ["provider"]}},
    }},
}}
ROW = {{"roles": ["provider"]}}
VIRTUAL_RESOURCES["tasks_notes"] = {{
    "add_lines": {{**ROW, "kind": "append", "target": "lines", "title": "Write more"}},
    "add_readers": {{**ROW, "kind": "append", "target": "readers"}},
    "approve": {{"kind": "append", "target": "readers", "roles": ["operator"]}},
    "remove_lines": {{**ROW, "kind": "remove", "target": "lines"}},
    "remove_readers": {{**ROW, "kind": "remove", "target": "readers"}},
    "shade": {{**ROW, "kind": "alias", "target": "colour.shade"}},
    "colour_name": {{**ROW, "kind": "alias", "target": "colour.name", "readonly": True}},
    "shout": {{**ROW, "kind": "action", "function": "notes_verbs:shout",
              "levels": ["item", "collection"], "title": "Shout"}},
    "length": {{**ROW, "kind": "view", "function": "notes_verbs:length",
               "levels": ["item", "collection"]}},
}}
VIRTUAL_RESOURCES["tasks"]["nickname"] = {{**ROW, "kind": "alias", "target": "name"}}
VIRTUAL_RESOURCES["tasks"]["memory"] = {{
    **ROW, "kind": "alias", "target": "requested_resources.cpu_memory_bytes",
}}
"""
VERBS = """
from banyan.server import scoped
from banyan.server.calls import Answer


def shout(call):
    return Answer({"shouted": call.body, "item": call.item_id, "_status": "OK"})


def length(call):
    note = scoped.item(call) if call.item_id else {}
    return Answer({"_items": list(note.get("title", ""))})
"""


class Extended(Processes):
    """Processes that read the settings page below, and find its functions."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._page = directory / "page.py"
        self._page.write_text(PAGE.format(page=str(ROOT / "settings.py")))
        (directory / "notes_verbs.py").write_text(VERBS)

    def environment(self) -> dict[str, str]:
        path = f"{ROOT}:{self._page.parent}"
        return {**super().environment(), "PYTHONPATH": path, "BANYAN_SETTINGS": str(self._page)}
