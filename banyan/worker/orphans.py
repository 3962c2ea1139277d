"""Processes that a task left behind, and whose they are.

The launcher is a subreaper: whatever a task starts becomes the launcher's own child once its
parent is gone, even when it has started a session of its own twice over. A child of the
launcher that it did not start itself is an orphan; this module says of which attempt.
Standard library only. It must never name a process that may belong to an attempt still
wanted alive.
"""

import os
from collections.abc import Collection, Mapping

from banyan.worker import tree


class Orphans:
    """The orphans seen so far. A pid stays valid until the launcher, its parent, reaps it."""

    def __init__(self) -> None:
        self._owners: dict[int, set[str]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, pid: int) -> bool:
        return pid in self._owners

    def look(self, leaders: Mapping[int, str], alive: Collection[str]) -> None:
        """Notes new orphans.

        leaders: the pids that the launcher started (reaped ones too, while their attempt
                 is alive) -> attempt.
        alive:   attempts not over yet, and those whose leader has only just ended.
        """
        children = set(tree.children(os.getpid()))
        for pid in self._owners.keys() - children:
            del self._owners[pid]
        for pid in children - self._owners.keys() - leaders.keys():
            self._owners[pid] = self._suspects(pid, leaders, alive)

    def reaped(self, pid: int) -> str | None:
        """Forgets a process that has ended; its attempt, where there is no doubt."""
        owners = self._owners.pop(pid, set())
        return next(iter(owners)) if len(owners) == 1 else None

    def of(self, attempt: str, over: Collection[str], alive: Collection[str]) -> list[int]:
        """Those of an attempt that belong to none but the attempts which are over."""
        living, ended = set(alive), set(over)
        return [
            pid
            for pid, owners in self._owners.items()
            if attempt in owners and (owners & living) <= ended
        ]

    def of_nobody(self, alive: Collection[str]) -> list[int]:
        """Those whose last possible attempt is gone."""
        living = set(alive)
        return [pid for pid, owners in self._owners.items() if not owners & living]

    @staticmethod
    def _suspects(pid: int, leaders: Mapping[int, str], alive: Collection[str]) -> set[str]:
        """Its session or group tells, else the marker; else all who may have started it.

        Who cleared its environment and left its session is nobody's for certain: it is
        held to belong to every attempt that was alive when it was first seen.
        """
        for leader in tree.group_and_session(pid):
            if leader in leaders:
                return {leaders[leader]}
        attempt = tree.variable_of(pid, tree.ATTEMPT_VARIABLE)
        return {attempt} if attempt and attempt in alive else set(alive)
