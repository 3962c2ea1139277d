"""Whose turn it is, in work for many that may be more than one round has time for.

Used by upkeep. Nobody's work stands behind all of somebody else's: of each a piece is done, then
the next of each. A round that is cut off in the middle goes on with the others next time.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, Self, TypeVar


class _Ordered(Protocol):
    def __lt__(self, other: Self, /) -> bool:
        """As of strings."""


Name = TypeVar("Name", bound=_Ordered)
Piece = TypeVar("Piece")


class Rota(Generic[Name]):
    """Remembers who was served last. Threads may share it: they serve more than one at a time."""

    def __init__(self) -> None:
        self._last: Name | None = None

    def turn(self, names: Iterable[Name]) -> Iterator[Name]:
        """Each of them once, first who stands behind the one that was served last."""
        ordered = sorted(names)
        place = 0 if self._last is None else bisect_right(ordered, self._last)
        for name in ordered[place:] + ordered[:place]:
            self._last = name
            yield name

    def pieces(self, works: Mapping[Name, Iterator[Piece]]) -> Iterator[Piece]:
        """A piece of each one's work, then the next of each, until all is done."""
        left = dict(works)
        while left:
            for name in self.turn(left):
                piece = next(left[name], None)
                if piece is None:
                    del left[name]
                else:
                    yield piece
