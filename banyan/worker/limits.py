"""What bounds an attempt beside its time: memory, processes, niceness, the cores it may use.

The agent says it (`Limits.to_json`), the launcher applies it to a process that it has just
started. It also decides whom the kernel ends first. Standard library only.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
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
        with contextlib.suppress(OSError):
            if self.nice:
                os.setpriority(os.PRIO_PROCESS, pid, self.nice)
        with contextlib.suppress(OSError):
            if self.cpus:
                os.sched_setaffinity(pid, self.cpus)


class OomScore:
    """Has tasks end before what serves others, where the machine has no memory left."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):
            file = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
            os.pwrite(file, os.pread(file, _OOM_SCORE_BYTES, 0), 0)
            self._file = file

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """What is started meanwhile inherits it: to write it for a process costs far more.

        Never less than our own: whoever runs us may have set that higher.
        """
        if self._file is None:
            yield
            return
        own = os.pread(self._file, _OOM_SCORE_BYTES, 0)
        os.pwrite(self._file, str(max(int(own), _OOM_SCORE_LEAST)).encode(), 0)
        try:
            yield
        finally:
            os.pwrite(self._file, own, 0)
