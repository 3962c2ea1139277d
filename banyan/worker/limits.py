"""What bounds an attempt beside its time: memory, processes, niceness, the cores it may use.

The agent says it (`Limits.to_json`), the launcher applies it to a process that it has just
started. Standard library only.
"""

import contextlib
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from banyan.worker import cgroups
from banyan.worker.cell import write

# How memory is held to what was granted: by the kernel, by looking, not at all; or the best
# of the first two that the machine has.
ENFORCEMENTS = ("best", "cgroup", "watch", "none")
_OOM_SCORE_LEAST = 500  # as if it used half of the machine's memory besides


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one attempt. cpus: the numbers of those that it may use; empty: all."""

    memory_bytes: int = 0  # 0: not bounded
    processes: int = 0  # at one time; 0: not bounded
    enforcement: str = "none"
    nice: int = 0
    cpus: tuple[int, ...] = ()
    cores: float = 1.0  # its share of a busy processor

    def to_json(self) -> dict[str, Any]:
        """For the way to the launcher."""
        return {name: getattr(self, name) for name in self.__slots__}  # `asdict` copies deeply

    @classmethod
    def from_json(cls, said: Mapping[str, Any] | None) -> "Limits":
        """The inverse; None is no limits."""
        said = said or {}
        return cls(**{**said, "cpus": tuple(said.get("cpus", ()))})

    @property
    def by_cgroup(self) -> bool:
        """Whether a cgroup is wanted, where there can be one: it bounds more than memory."""
        return self.enforcement in ("best", "cgroup")

    @property
    def by_watching(self) -> bool:
        """Whether it is to be looked after, where there is no cgroup."""
        return self.memory_bytes > 0 and self.enforcement != "none"

    def apply(self, pid: int) -> None:
        """To a process that has only just started; one that has ended again needs none.

        Where the machine has no memory left, tasks are to end before what serves others.
        """
        with contextlib.suppress(OSError):
            write(f"/proc/{pid}/oom_score_adj", _oom_score())
        with contextlib.suppress(OSError):
            if self.nice:
                os.setpriority(os.PRIO_PROCESS, pid, self.nice)
        with contextlib.suppress(OSError):
            if self.cpus:
                os.sched_setaffinity(pid, self.cpus)


@functools.cache
def _oom_score() -> int:
    """Never less than the launcher's own: whoever runs it may have set that higher."""
    said = cgroups.read_short("/proc/self/oom_score_adj").strip()
    return max(int(said or 0), _OOM_SCORE_LEAST)
