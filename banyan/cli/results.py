"""`banyan results`: what the tasks of a sweep have given back, as a table.

Inside a task it is `banyan result` that gives something back.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.output import as_json, json_text, print_json
from banyan.cli.selecting import Selection, selection_options
from banyan.cli.tables import print_table
from banyan.cli.verdict import standing
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.client.graph import ARRAY_TAG
from banyan.errors import BanyanError
from banyan.printable import harmless

_INDEX, _LINE, _ITEM = (f"BANYAN_{name}" for name in ("ARRAY_INDEX", "LINE", "ITEM"))
_READ = (
    "name", "state", "outcome", "tags", "result", *(f"env.{one}" for one in (_INDEX, _LINE, _ITEM))
)  # fmt: skip

Column = tuple[str, str]  # which part of a task, and the name in it; the name is empty for all
_PARTS = ("task", "index", "name", "parameters", "tags", "state", "result")


@click.command("results")
@with_client()
@selection_options
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a line of titles.")
@as_json
def results_command(client: Client, chosen: Selection, as_csv: bool, as_json: bool) -> None:
    """What tasks have given back with 'banyan result': one row a task, the oldest first.

    Its columns are the index or the name, the parameters (of --from-json, --each-line, and tags
    that differ), the state, and the members of the results. What is no text is JSON.

    \b
    Example:
      banyan results --csv @6740a1b2c3d4e5f60718293a > results.csv
    """
    tasks = _read(client, chosen)
    if as_json:
        print_json(tasks)
        return
    titles, lines = _table(tasks)
    if as_csv:
        _print_csv([titles, *lines])
    else:
        print_table([title.upper() for title in titles], lines)


def _read(client: Client, chosen: Selection) -> list[dict[str, Any]]:
    """The parts of each."""
    has_command = {"command": {"$ne": None}}  # a group gives nothing back
    where = {"$and": [chosen.where, has_command]}
    found = client.find(where, sort="_id", projection=dict.fromkeys(_READ, 1))
    tasks: list[dict[str, Any]] = []
    with Working("reading results") as working:
        for one in found:
            env = one.get("env") or {}
            tasks.append(
                {
                    "task": one["_id"],
                    "index": env.get(_INDEX),
                    "name": one.get("name"),
                    "parameters": _parameters(env),
                    "tags": {k: v for k, v in (one.get("tags") or {}).items() if k != ARRAY_TAG},
                    "state": standing(one),
                    "result": one.get("result"),
                }
            )
            working(len(tasks))
    if not tasks:
        raise BanyanError("not_found", "there is no such task")
    return tasks


def _parameters(env: Mapping[str, Any]) -> dict[str, Any]:
    found = {"line": env[_LINE]} if _LINE in env else {}
    if _ITEM not in env:
        return found
    item = _item(env[_ITEM])
    return {**found, **(item if isinstance(item, dict) else {"item": item})}


def _item(text: str) -> Any:
    """What is only text stands in the environment without its quotes."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _table(tasks: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [_row(task) for task in tasks]
    columns = _columns(rows)
    titles: list[str] = []
    for part, name in columns:
        bare = name or part
        titles.append(bare if bare not in titles else f"{part}.{bare}")
    return titles, [[row.get(one, "") for one in columns] for row in rows]


def _row(task: Mapping[str, Any]) -> dict[Column, str]:
    row: dict[Column, str] = {}
    for part in _PARTS:
        value = task[part]
        if isinstance(value, dict):
            row |= {(part, name): _text(one) for name, one in value.items()}
        elif value is not None:
            row[part, ""] = _text(value)
    return row


def _columns(rows: Sequence[Mapping[Column, str]]) -> list[Column]:
    """All that rows have, by parts; names and tags only where they tell rows apart."""
    found = dict.fromkeys(column for row in rows for column in row)
    indexed = all(("index", "") in row for row in rows)
    return [
        column
        for column in sorted(found, key=lambda one: _PARTS.index(one[0]))  # else as they come
        if not (column[0] == "tags" or (column[0] == "name" and indexed))
        or len({row.get(column) for row in rows}) > 1
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)


def _print_csv(lines: Iterable[Sequence[str]]) -> None:
    on_terminal = sys.stdout.isatty()
    for line in lines:
        text = io.StringIO()
        shown = map(harmless, line) if on_terminal else line
        csv.writer(text, lineterminator="\n").writerow(shown)
        click.echo(text.getvalue(), nl=False)
