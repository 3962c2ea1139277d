"""Spares Cerberus all that is not wrong: it takes up to a millisecond for each part of a value.

`validation.py` calls it before it asks Cerberus what is wrong with a document. Of that only
what is not plainly valid is left, and of long lists and objects the first few such parts.
Otherwise one request of ten thousand parts held a thread for 10 s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from banyan.server.quick import Check, Named, Unsure

_SHOWN_MAX = 8  # of one list or object
_UNKNOWN_MAX = 16
# Of all that Cerberus is shown of one document; beyond it a field is only said to be wrong.
PARTS_MAX = 64
_TOO_MUCH_WRONG = "is not valid; what is wrong with the other fields is told first"

Rules = Mapping[str, Any]


@dataclass(frozen=True)
class Spared:
    """What is left of a document for Cerberus.

    issues: what was found without it; good: fields that were left out because nothing is wrong.
    places: of a list that was cut, where its items stood. is_whole: nothing was left out.
    """

    document: dict[str, Any]
    issues: Mapping[str, Any]
    good: frozenset[str]
    places: Mapping[str, list[int]]
    is_whole: bool

    def told(self, errors: Mapping[str, Any]) -> dict[str, Any]:
        """Cerberus's errors, with the places that the items had, and the issues found before."""
        placed = {
            name: self._placed(name, wrong)
            for name, wrong in errors.items()
            if name not in self.good and name not in self.issues
        }
        return {**placed, **self.issues}

    def _placed(self, name: str, wrong: Any) -> Any:
        places = self.places.get(name)
        if places is None or not isinstance(wrong, dict):
            return wrong
        return {places[index]: one for index, one in wrong.items()}


def spare(
    schema: Rules,
    document: Mapping[str, Any],
    compiled: Callable[[Any], Check],
    coercions: Named,
    checks: Named,
) -> Spared:
    """compiled: the quick check of a value by its rules; the others as `quick` has them."""
    return _Sparing(compiled, coercions, checks).spare(schema, document)


class _Sparing:
    """One document, of which so many parts may still be shown."""

    def __init__(self, compiled: Callable[[Any], Check], coercions: Named, checks: Named) -> None:
        self._compiled = compiled
        self._coercions = coercions
        self._checks = checks
        self._left = PARTS_MAX

    def spare(self, schema: Rules, document: Mapping[str, Any]) -> Spared:
        kept: dict[str, Any] = {}
        good: set[str] = set()
        places: dict[str, list[int]] = {}
        unknown = [name for name in document if name not in schema][:_UNKNOWN_MAX]
        issues: dict[str, Any] = {name: ["unknown field"] for name in unknown}
        for name in [name for name in document if name in schema]:
            value, rules = document[name], schema[name]
            if self._holds(rules, value):
                good.add(name)
            elif wrong := self._wrong(rules, value):
                issues[name] = wrong
            elif _is_plain_list(rules) and isinstance(value, list):
                places[name] = self._doubtful(value, rules)
                kept[name] = [self._part(rules["schema"], value[one]) for one in places[name]]
            else:
                kept[name] = self._part(rules, value)
            if self._left < 0:
                kept.pop(name, None)
                issues.setdefault(name, [_TOO_MUCH_WRONG])
        return Spared(kept, issues, frozenset(good), places, kept == document)

    def _holds(self, rules: Rules, value: Any) -> bool:
        return _passes(self._compiled(rules), value)

    def _wrong(self, rules: Rules, value: Any) -> Any:
        """What can be said of a value as a whole; None where Cerberus is to be asked."""
        if rules.get("readonly"):
            return ["field is read-only"]
        if "coerce" in rules:
            return self._unread(rules["coerce"], value)
        if not isinstance(value, list | dict):
            return None
        most = rules.get("maxlength")
        if most is not None and len(value) > most:
            return [f"max length is {most}"]
        wrong = self._checks[rules["check_with"]](value) if _is_checked(rules) else None
        return [wrong] if wrong else None

    def _unread(self, name: str, value: Any) -> str | None:
        try:
            self._coercions[name](value)
        except (ValueError, TypeError) as problem:
            return str(problem)
        return None

    def _part(self, rules: Rules, value: Any) -> Any:
        """A value with nothing in it but what is doubtful."""
        self._left -= 1
        if not isinstance(value, dict) or "coerce" in rules:
            self._left -= _beyond(value, rules)
            return value
        if "schema" in rules:
            return self._object(rules, value)
        if "keysrules" in rules or "valuesrules" in rules:
            return self._pairs(rules, value)
        return value

    def _object(self, rules: Rules, value: Mapping[str, Any]) -> dict[str, Any]:
        fields = rules["schema"]
        kept = {name: one for name, one in value.items() if fields.get(name, {}).get("required")}
        doubtful = [
            name
            for name, one in value.items()
            if name not in fields or not self._holds(fields[name], one)
        ]
        for name in doubtful[:_SHOWN_MAX]:
            kept[name] = self._part(fields[name], value[name]) if name in fields else None
        return kept

    def _pairs(self, rules: Rules, value: Mapping[str, Any]) -> dict[str, Any]:
        names, values = (self._compiled(rules.get(r, {})) for r in ("keysrules", "valuesrules"))
        doubtful = [
            name
            for name, one in value.items()
            if not (_passes(names, name) and _passes(values, one))
        ]
        inner = rules.get("valuesrules", {})
        return {name: self._part(inner, value[name]) for name in doubtful[:_SHOWN_MAX]}

    def _doubtful(self, value: list[Any], rules: Rules) -> list[int]:
        """Where the items stand that are to be shown; two equal ones where values repeat."""
        check = self._compiled(rules["schema"])
        found = [index for index, one in enumerate(value) if not _passes(check, one)]
        if not found and not rules.get("allows_duplicates", True):
            found = _repeated(value)
        found = found[:_SHOWN_MAX]
        rest = rules.get("minlength", 1) - len(found)  # else a list that was cut is too short
        others = (index for index in range(len(value)) if index not in found)
        return sorted([*found, *islice(others, max(0, rest))])


def _is_plain_list(rules: Rules) -> bool:
    return rules.get("type") == "list" and "schema" in rules and "coerce" not in rules


def _is_checked(rules: Rules) -> bool:
    return isinstance(rules.get("check_with"), str)


def _beyond(value: Any, rules: Rules) -> int:
    """How many parts Cerberus would look at within a value that can't be cut."""
    return len(value) if isinstance(value, list) and "schema" in rules else 0


def _passes(check: Check, value: Any) -> bool:
    try:
        check(value)
    except Unsure:
        return False
    return True


def _repeated(value: Sequence[Any]) -> list[int]:
    first: dict[str, int] = {}
    for index, one in enumerate(value):
        before = first.setdefault(str(one).lower(), index)
        if before != index:
            return [before, index]
    return []
