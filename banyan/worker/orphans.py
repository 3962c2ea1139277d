"""Processes that a task left behind, and whose they are.

The launcher is a subreaper: whatever a task starts becomes the launcher's own child once its
parent is gone, even when it has started a session of its own twice over. A child of the
launcher that it did not start itself is an orphan; this module says of which attempt.
Standard library only. It must never name a process that may belong to an attempt still
wanted alive, nor believe what a task can write.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from banyan.worker import tree
from banyan.worker.groups import Groups
from banyan.worker.marks import Marks
from banyan.worker.process_reader import ProcessReader

_NEW_MAX = 256


class Owners(NamedTuple):
    """Of which attempts a process may be. sure: it is of no other, whatever it says of itself."""

    attempts: frozenset[str]
    sure: bool


class Orphans:
    """The orphans seen so far. A pid stays valid until the launcher, its parent, reaps it."""

    def __init__(self, confined_in: Callable[[int], str | None], reader: ProcessReader) -> None:
        """confined_in: the attempt in whose cgroup a process is; None: in none."""
        self._confined_in = confined_in
        self.groups = Groups()
        self._reader = reader
        self._marks = Marks(reader)
        self._owners: dict[int, Owners] = {}
        self._seen: dict[str, dict[int, tree.Birth]] = {}  # below the leaders, at the last look

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, pid: int) -> bool:
        return pid in self._owners

    def look(self, leaders: Mapping[int, str], alive: Collection[str], all_confined: bool) -> None:
        """Notes new orphans.

        leaders:      the pids that the launcher started (reaped ones too, while their attempt
                      is alive) -> attempt.
        alive:        attempts not over yet, and those whose leader has only just ended.
        all_confined: each of them has a cgroup, which knows who is of it. Then a number of new ones
                      is enough for one look: of thousands that come and go most need none.
        """
        children = set(tree.own_children())
        for pid in self._owners.keys() - children:
            del self._owners[pid]
        for attempt in self._seen.keys() - alive:
            del self._seen[attempt]
        self.groups.keep(alive)
        new = children - self._owners.keys() - leaders.keys() - self._reader.readers
        for pid in itertools.islice(new, _NEW_MAX if all_confined else None):
            self._owners[pid] = self._suspects(pid, leaders, alive)

    def note(self, attempt: str, pids: Iterable[int]) -> None:
        """What is below the leader of an attempt now, for the time when it is an orphan."""
        known = self._seen.get(attempt, {})
        self._seen[attempt] = {pid: known.get(pid) or tree.birth_of(pid) for pid in pids}

    def reaped(self, pid: int) -> str | None:
        """Forgets a process that has ended; its attempt, where there is no doubt."""
        self._reader.forget(pid)
        owners = self._owners.pop(pid, None)
        return next(iter(owners.attempts), None) if owners and owners.sure else None

    def of(self, attempt: str, over: Collection[str], alive: Collection[str]) -> list[int]:
        """Those of an attempt that belong to none but the attempts which are over."""
        living, ended = set(alive), set(over)
        return [
            pid
            for pid, owners in self._owners.items()
            if attempt in owners.attempts and (owners.attempts & living) <= ended
        ]

    def of_nobody(self, alive: Collection[str]) -> list[int]:
        """Those whose last possible attempt is gone."""
        living = set(alive)
        return [pid for pid, owners in self._owners.items() if not owners.attempts & living]

    def may_be_of(self, attempt: str, pid: int, all_confined: bool) -> bool:
        """Whether a child of the launcher that is in no cgroup may be of an attempt that begins.

        all_confined: all others have a cgroup. Then nobody else's is left, and it is not asked.
        """
        if pid in self._owners or pid in self._reader.readers:
            return False
        owner = self.groups.attempt_of(tree.user_group_of(pid))
        if owner is not None:
            return owner == attempt
        return all_confined or self._marks.of(pid).attempt in (None, attempt)

    def surely_of(self, attempt: str) -> list[int]:
        """Those of which there is no doubt: what they use is the attempt's."""
        return [
            pid
            for pid, owners in self._owners.items()
            if owners.sure and attempt in owners.attempts
        ]

    def unsure(self, alive: Collection[str]) -> list[tuple[frozenset[str], list[int]]]:
        """All others, by the attempts alive of which they may be.

        Without those that are over: else each short task in between would make one group more,
        with a bound of its own.
        """
        found: dict[frozenset[str], list[int]] = {}
        living = set(alive)
        for pid, owners in self._owners.items():
            if not owners.sure:
                found.setdefault(owners.attempts & living, []).append(pid)
        return list(found.items())

    def _suspects(self, pid: int, leaders: Mapping[int, str], alive: Collection[str]) -> Owners:
        """Its user group, its cgroup, its session, and below whom it was seen: that is sure.

        The mark in its environment is the task's to write, and is read last, if it can be. Whoever
        bears it is held to be of that attempt, and of no other's account: a wrong one ends sooner
        than without a mark. Who has cleared it too is held to belong to every attempt that was
        alive when it was first seen.
        """
        owner = self.groups.attempt_of(tree.user_group_of(pid))
        if owner is not None:
            return Owners(frozenset([owner] if owner in alive else []), True)
        if attempt := self._confined_in(pid):
            return Owners(frozenset([attempt]), True)
        born = tree.birth_of(pid)
        for leader in (born.group, born.session):
            if leader in leaders:
                return Owners(frozenset([leaders[leader]]), True)
        for attempt, seen in self._seen.items():
            if _is_among(pid, born, seen):
                return Owners(frozenset([attempt]), True)
        marked = self._marks.of(pid).attempt
        return Owners(frozenset([marked] if marked and marked in alive else alive), False)


def _is_among(pid: int, born: tree.Birth, seen: Mapping[int, tree.Birth]) -> bool:
    """Whether it was seen, or something of the session that it is in."""
    if pid in seen and seen[pid].ticks == born.ticks:
        return True
    return born.session != 0 and any(born.session == other.session for other in seen.values())
