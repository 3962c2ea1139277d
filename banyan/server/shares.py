"""What each owner has of something that is bounded in all: who has most gives way to the others.

Used for connections (`connections.py`) and for unread answers (`unread.py`); on the event loop
only. No owner needs a bound of its own: whoever is alone may have all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


@dataclass
class _Share(Generic[Thing]):
    """What one owner has."""

    count: int = 0
    things: dict[Thing, None] = field(default_factory=dict)  # what came first is the first


class Shares(Generic[Thing]):
    """Things by their owners; each has a weight."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share[Thing]] = {}
        self._entered: dict[Thing, tuple[str, int]] = {}
        self.count = 0  # of all weights

    def enter(self, owner: str, thing: Thing, weight: int = 1) -> None:
        """The owner has it from now on. What is there already becomes the last of its things."""
        self.leave(thing)
        share = self._shares.setdefault(owner, _Share())
        share.things[thing] = None
        share.count += weight
        self.count += weight
        self._entered[thing] = owner, weight

    def leave(self, thing: Thing) -> None:
        """Nobody has it any more; nothing, where nobody had."""
        owner, weight = self._entered.pop(thing, ("", 0))
        share = self._shares.get(owner)
        if share is None or thing not in share.things:
            return
        del share.things[thing]
        share.count -= weight
        self.count -= weight
        if not share.things:
            del self._shares[owner]

    def of_most(self) -> Mapping[Thing, None]:
        """What the owner has who has most, the first one first; nothing where there is nothing."""
        if not self._shares:
            return {}
        return max(self._shares.values(), key=lambda share: share.count).things
