"""What of the machine is taken, and by which attempt.

Owned by the agent's loop. The arithmetic is the domain's; here are the names: which attempt
holds what, and which GPUs, by index. It must never count an attempt twice.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from banyan.domain.resources import Capacity, Gpu, Grant, fits
from banyan.worker.politeness import Others

_KEPT = ("cores", "memory_bytes", "gpu_count")
_TASKS_AT_LEAST, _TASKS_EACH_CORE = 64, 16


class _Held(NamedTuple):
    grant: Grant
    gpus: tuple[int, ...]
    cpus: tuple[int, ...]


class Ledger:
    """Reserved and free."""

    def __init__(
        self,
        total: Capacity,
        cpus: Sequence[int] = (),
        others: Others | None = None,
        max_tasks: int | None = None,
    ) -> None:
        """`cpus`: the numbers of those that attempts are bound to; none: they are not.

        others: who is given way to.
        max_tasks: so many attempts at one time, also of tasks that ask for nothing; None: 64,
        or 16 a core.
        """
        usual = max(_TASKS_AT_LEAST, int(_TASKS_EACH_CORE * total.cores))
        self._max_tasks = usual if max_tasks is None else max_tasks
        self._others = others
        self.total = total
        self._cpus = cpus
        self._held: dict[str, _Held] = {}
        self.left_bytes = 0  # of memory, by earlier attempts: see `set_left`
        self._free: Capacity | None = total

    @property
    def free(self) -> Capacity:
        """What nobody holds, less what earlier attempts have left in memory, and what is to be
        left alone; never below nothing.

        Of a worker that has as many attempts as it may, nothing.
        """
        if self.is_full:
            return replace(self.total, cores=0, memory_bytes=0, gpus=())
        if self._free is None:
            free = replace(self.total, gpus=tuple(self.total.gpus[i] for i in self._free_gpus()))
            for held in self._held.values():
                free = free.minus(replace(held.grant, gpu_count=0))
            self._free = free.minus(Grant(memory_bytes=self.left_bytes))
        taken = self._others.cores() if self._others else 0
        return self._free.minus(Grant(cores=taken)) if taken else self._free

    def fits(self, grant: Grant) -> bool:
        """Whether there is room for it now."""
        return not self.is_full and fits(grant, self.free)

    @property
    def is_full(self) -> bool:
        """Whether there are as many attempts as there may be."""
        return len(self._held) >= self._max_tasks

    @property
    def usable(self) -> Capacity:
        """What there is when nothing runs: all but memory that earlier attempts have left taken."""
        return self.total.minus(Grant(memory_bytes=self.left_bytes))

    @property
    def is_overdrawn(self) -> bool:
        """Whether attempts were granted memory that earlier ones have not left free."""
        if not self.left_bytes:
            return False
        granted = sum(held.grant.memory_bytes for held in self._held.values())
        return granted + self.left_bytes > self.total.memory_bytes

    def set_left(self, memory_bytes: int) -> bool:
        """So much memory earlier attempts have left taken; whether others were granted some of it.

        It is given to nobody.
        """
        self.left_bytes = memory_bytes
        self._free = None
        return self.is_overdrawn

    def take(
        self,
        attempt: str,
        grant: Grant,
        gpus: tuple[int, ...] | None = None,
        cpus: tuple[int, ...] | None = None,
    ) -> list[int]:
        """Reserves a grant; the indexes of its GPUs.

        gpus, cpus: those that it holds already, where an earlier agent has chosen them.
        """
        if attempt not in self._held:
            gpus = self._choose_gpus(grant) if gpus is None else gpus
            cpus = self._choose_cpus(grant) if cpus is None else cpus
            self._held[attempt] = _Held(grant, gpus, cpus)
            self._free = None
        return list(self._held[attempt].gpus)

    def cpus_of(self, attempt: str) -> tuple[int, ...]:
        """The CPUs that an attempt is bound to; none: all."""
        return self._held[attempt].cpus

    def gpus_of(self, attempt: str) -> tuple[int, ...]:
        """The indexes of the GPUs that an attempt holds."""
        return self._held[attempt].gpus if attempt in self._held else ()

    def kept_by(self, attempts: Iterable[str]) -> dict[str, Any]:
        """What these hold, with what earlier ones have left in memory; asked by other threads.

        {"cores", "memory_bytes", "gpu_count"}, or empty.
        """
        kept = [held.grant for each in attempts if (held := self._held.get(each))]
        if self.left_bytes:
            kept.append(Grant(memory_bytes=self.left_bytes))
        return {name: sum(getattr(each, name) for each in kept) for name in _KEPT if kept}

    def pass_on(self, ended: str, following: str) -> None:
        """All that one has held is another's from now on."""
        self._held[following] = self._held.pop(ended)

    def give_back(self, attempt: str) -> bool:
        """Frees what an attempt holds; whether it held anything."""
        self._free = None
        return self._held.pop(attempt, None) is not None

    def _choose_gpus(self, grant: Grant) -> tuple[int, ...]:
        """The least that will do, so that the larger stay free for who needs them."""
        least = Gpu(grant.gpu_memory_bytes, grant.gpu_capability)
        able = [i for i in self._free_gpus() if self.total.gpus[i].covers(least)]
        able.sort(key=lambda index: (self.total.gpus[index], index))
        return tuple(sorted(able[: grant.gpu_count]))

    def _choose_cpus(self, grant: Grant) -> tuple[int, ...]:
        """As many as it has cores, those that carry the least; a part of a core shares one."""
        load = dict.fromkeys(self._cpus, 0.0)
        for held in self._held.values():
            for cpu in held.cpus:
                load[cpu] = load.get(cpu, 0.0) + held.grant.cores / len(held.cpus)
        chosen = sorted(self._cpus, key=lambda cpu: (load[cpu], cpu))
        return tuple(sorted(chosen[: max(math.ceil(grant.cores), 1)]))

    def _free_gpus(self) -> list[int]:
        taken = {index for held in self._held.values() for index in held.gpus}
        return [index for index in range(len(self.total.gpus)) if index not in taken]
