"""The user group that an attempt under `--run-as` has for itself.

Drawn by the launcher, which knows from it whose a process is. Standard library only. A group must
not come again: a set-group-ID program that an attempt has left behind keeps its group for ever, and
could look into whoever has that group then.
"""

import os
from collections.abc import Collection

# Below are the ranges of the usual directories of users. Above is one of systemd's, and above
# 2^31 groups are trouble.
FIRST = 2_100_000_000
COUNT = 47_352_576
_RANDOM_BYTES = 8


class Groups:
    """Those of the attempts of one launcher. What it does not know is no living attempt's."""

    def __init__(self) -> None:
        self._attempts: dict[int, str] = {}
        self._own = os.getgid()  # a launcher may itself run in a task with such a group

    def draw(self, attempt: str) -> int:
        """A group that nobody can foresee, and that no attempt has here now."""
        while True:
            group = FIRST + int.from_bytes(os.urandom(_RANDOM_BYTES)) % COUNT
            if group not in self._attempts and group != self._own:
                self._attempts[group] = attempt
                return group

    def attempt_of(self, group: int) -> str | None:
        """Whose it is; empty: of an attempt that is over; None: no group of an attempt."""
        if not is_one(group) or group == self._own:
            return None
        return self._attempts.get(group, "")

    def keep(self, alive: Collection[str]) -> None:
        """Forgets the groups of all other attempts."""
        for group, attempt in list(self._attempts.items()):
            if attempt not in alive:
                del self._attempts[group]


def is_one(group: int) -> bool:
    """Whether it is one that attempts get, of whatever worker."""
    return FIRST <= group < FIRST + COUNT
