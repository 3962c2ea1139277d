"""Connections by which no valid token came yet, by the networks from which they come.

Used by `connections.py`, on the event loop only. Who has most is known at once, however many
networks there are: it is asked for each connection that comes while there are too many.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Newcomers(Generic[Thing]):
    """Of each network the oldest first."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Thing, None]] = {}
        self._by_count: dict[int, dict[str, None]] = {}  # networks
        self._most = 0  # that one network has
        self.count = 0

    def add(self, network: str, thing: Thing) -> None:
        """One more, which is not there yet."""
        mine = self._of.setdefault(network, {})
        mine[thing] = None
        self._move(network, len(mine) - 1, len(mine))

    def remove(self, network: str, thing: Thing) -> None:
        """One less; nothing, where it is not there."""
        mine = self._of.get(network, {})
        if thing not in mine:
            return
        del mine[thing]
        self._move(network, len(mine) + 1, len(mine))
        if not mine:
            del self._of[network]

    def put_last(self, network: str, thing: Thing) -> None:
        """It counts as the youngest from now on."""
        mine = self._of[network]
        mine[thing] = mine.pop(thing)

    def of(self, network: str) -> Mapping[Thing, None]:
        """Those of one network."""
        return self._of.get(network, {})

    def of_most(self) -> Mapping[Thing, None]:
        """Those of the network that has most; nothing where there is nothing."""
        network = next(iter(self._by_count.get(self._most, {})), None)
        return {} if network is None else self._of[network]

    def _move(self, network: str, before: int, after: int) -> None:
        """It has one more now, or one less."""
        self.count += after - before
        if before:
            del self._by_count[before][network]
            if not self._by_count[before]:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[network] = None
        self._most = max(self._most, after)
        if self._most and self._most not in self._by_count:
            self._most -= 1
