"""Reads an object that a client sent, field by field.

banyan.domain.resources calls this. It collects all that is wrong instead of ending at the first.
"""

from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import Any, TypeVar

Number = int | float
T = TypeVar("T")
D = TypeVar("D")

NAME_SHOWN_MAX = 256
ISSUES_MAX = 32  # of one object: a message on each of a million unknown names would fill the memory


class ResourceError(ValueError):
    """`.issues`: what is wrong, by field as the client wrote it ("memory", "gpus.0.memory")."""

    def __init__(self, issues: dict[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in issues.items()))
        self.issues = issues


class Fields:
    """Reads one object field by field and collects all that is wrong, so it is told at once."""

    def __init__(self, given: object, known: Collection[str]) -> None:
        if not isinstance(given, Mapping):
            raise ResourceError({"": "must be an object"})
        self.given: Mapping[Any, object] = given
        self.issues: dict[str, str] = {}
        unknown = (name for name in given if name not in known)
        for name in islice(unknown, ISSUES_MAX):
            self.issues[str(name)[:NAME_SHOWN_MAX]] = f"unknown; known are {', '.join(known)}"

    def read(self, name: str, parse: Callable[[object], T], default: D) -> T | D:
        """The parsed field, or `default` where it is left out or wrong (which is an issue)."""
        if name not in self.given:
            return default
        try:
            return parse(self.given[name])
        except ResourceError as problem:
            for inner, text in islice(problem.issues.items(), ISSUES_MAX):
                self.issues[f"{name}.{inner}".removesuffix(".")] = text
        except ValueError as problem:
            self.issues[name] = str(problem)
        return default

    def check(self) -> None:
        """Raises ResourceError if anything was wrong."""
        if self.issues:
            raise ResourceError(self.issues)


def tidy(value: Number) -> Number:
    """Six decimals, and an int where it is whole, so that equal amounts are stored alike."""
    value = round(value, 6)
    return int(value) if value == int(value) else value


def parse_number(value: object, largest: Number) -> Number:
    """A tidy number, 0 to `largest`; ValueError otherwise."""
    # Not-a-number and infinity fail the comparison, so no separate test is needed.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
        raise ValueError(f"must be a number, 0 to {largest}")
    return tidy(value)


def parse_integer(value: object, largest: int) -> int:
    """A whole number, 0 to `largest`, also written 2.0; ValueError otherwise."""
    number = parse_number(value, largest)
    if not isinstance(number, int):
        raise ValueError(f"must be a whole number, 0 to {largest}")
    return number
