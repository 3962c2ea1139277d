"""Starts that wait in the launcher until the attempt before them has ended.

Used by the supervision: so the next short task begins at once, without a word from the agent.
A successor takes what its predecessor held, no more; the agent sees to that. Standard library
only. It must never name one while anything of its predecessor lives.
"""

from typing import Any

from banyan.worker.wire import Message


class Successors:
    """By predecessor; a predecessor has one, which may have one in turn."""

    def __init__(self) -> None:
        self._by_predecessor: dict[str, Message] = {}
        self._predecessors: dict[str, str] = {}

    @property
    def attempts(self) -> list[str]:
        """All that wait."""
        return list(self._predecessors)

    def __contains__(self, attempt: str) -> bool:
        return attempt in self._predecessors

    def add(self, predecessor: str, start: Message) -> None:
        """A start that waits for `predecessor`, or for the last that waits for it."""
        while predecessor in self._by_predecessor:
            predecessor = self._by_predecessor[predecessor]["attempt"]
        self._by_predecessor[predecessor] = start
        self._predecessors[start["attempt"]] = predecessor

    def of(self, predecessor: str) -> Message | None:
        """Takes out the one that waits for it."""
        start = self._by_predecessor.pop(predecessor, None)
        if start:
            del self._predecessors[start["attempt"]]
        return start

    def withdraw(self, attempt: str) -> Message | None:
        """Takes one out; who waits for it waits for its predecessor instead."""
        predecessor = self._predecessors.pop(attempt, None)
        if predecessor is None:
            return None
        start = self._by_predecessor.pop(predecessor)
        if following := self.of(attempt):
            self.add(predecessor, following)
        return start

    def all(self) -> list[dict[str, Any]]:
        """For a new agent: which there are, and after whom."""
        return [
            {"attempt": start["attempt"], "keep": start["keep"], "after": predecessor}
            for predecessor, start in self._by_predecessor.items()
        ]
