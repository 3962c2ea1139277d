"""Spares Cerberus what is long: it takes up to a millisecond for each part of a value.

`validation.py` calls it before it asks Cerberus what is wrong with a document. A value over
its length is refused at once, and of a long list Cerberus sees only what is not plainly
valid, the first few. Otherwise one request of ten thousand parts held a thread for 10 s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from banyan.server.quick import Check, Unsure

_LIST_LONG = 32
_SHOWN_MAX = 8
_UNKNOWN_MAX = 32


@dataclass(frozen=True)
class Spared:
    """What is left of a document for Cerberus.

    issues: what was found without it; places: of a list that was cut, where its items stood.
    """

    document: dict[str, Any]
    issues: Mapping[str, Any]
    places: Mapping[str, list[int]]

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.issues and not self.places

    def told(self, errors: Mapping[str, Any]) -> dict[str, Any]:
        """Cerberus's errors, with the places that the items had, and the issues found before."""
        placed = {name: self._placed(name, wrong) for name, wrong in errors.items()}
        return {**placed, **self.issues}

    def _placed(self, name: str, wrong: Any) -> Any:
        places = self.places.get(name)
        if places is None or not isinstance(wrong, dict):
            return wrong
        return {places[index]: one for index, one in wrong.items()}


def spare(
    schema: Mapping[str, Any], document: Mapping[str, Any], compiled: Callable[[Any], Check]
) -> Spared:
    """compiled: the quick check of a value by its rules."""
    kept: dict[str, Any] = {}
    issues: dict[str, Any] = {}
    places: dict[str, list[int]] = {}
    unknown = [name for name in document if name not in schema]
    for name in unknown[:_UNKNOWN_MAX]:
        issues[name] = ["unknown field"]
    for name in document.keys() & schema.keys():
        value, rules = document[name], schema[name]
        most = rules.get("maxlength")
        if isinstance(value, list | dict) and most is not None and len(value) > most:
            issues[name] = [f"max length is {most}"]
        elif isinstance(value, list) and len(value) > _LIST_LONG and _is_plain_list(rules):
            places[name] = _doubtful(value, rules, compiled)
            kept[name] = [value[index] for index in places[name]]
        else:
            kept[name] = value
    return Spared(kept, issues, places)


def _is_plain_list(rules: Mapping[str, Any]) -> bool:
    return rules.get("type") == "list" and "schema" in rules and "coerce" not in rules


def _doubtful(
    value: list[Any], rules: Mapping[str, Any], compiled: Callable[[Any], Check]
) -> list[int]:
    """Where the items stand that are to be shown; two equal ones where values repeat."""
    check = compiled(rules["schema"])
    found = [index for index, one in enumerate(value) if not _holds(check, one)]
    if not found and not rules.get("allows_duplicates", True):
        found = _repeated(value)
    return found[:_SHOWN_MAX] or [0]


def _holds(check: Check, value: Any) -> bool:
    try:
        check(value)
    except Unsure:
        return False
    return True


def _repeated(value: list[Any]) -> list[int]:
    first: dict[str, int] = {}
    for index, one in enumerate(value):
        before = first.setdefault(str(one).lower(), index)
        if before != index:
            return [before, index]
    return []
