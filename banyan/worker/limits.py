"""What bounds an attempt beside its time: memory, processes, niceness, the cores it may use.

The agent says it (`Limits.to_json`), the launcher applies it to a process that it has just
started. It also decides whom the kernel ends first. Standard library only.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# How memory is held to what was granted: by the kernel, by looking, not at all; or the best
# of the first two that the machine has.
ENFORCEMENTS = ("best", "cgroup", "watch", "none")
_OOM_SCORE_LEAST = 500  # as if it used half of the machine's memory besides
_OOM_SCORE_BYTES = 16


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
        """To a process that has only just started; one that has ended again needs none."""
        if self.nice:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, self.nice)
        if self.cpus:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(pid, self.cpus)


class OomScore:
    """Has tasks end before what serves others, where the machine has no memory left.

    They inherit it: to write it for each process costs far more.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._own = b""
        with contextlib.suppress(OSError):
            file = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
            os.pwrite(file, os.pread(file, _OOM_SCORE_BYTES, 0), 0)
            self._file = file

    def raise_own(self) -> None:
        """Until `restore`. Never below what it is: whoever runs us may have set it higher."""
        if self._file is not None:
            self._own = os.pread(self._file, _OOM_SCORE_BYTES, 0)
            os.pwrite(self._file, str(max(int(self._own), _OOM_SCORE_LEAST)).encode(), 0)

    def restore(self) -> None:
        """As it was before."""
        if self._file is not None:
            os.pwrite(self._file, self._own, 0)
