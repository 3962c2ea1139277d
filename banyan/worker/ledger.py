"""What of the machine is taken, and by which attempt.

Owned by the agent's loop. The arithmetic is the domain's; here are the names: which attempt
holds what, and which GPUs, by index. It must never count an attempt twice.
"""

from dataclasses import replace

from banyan.domain.resources import Capacity, Gpu, Grant, fits


class Ledger:
    """Reserved and free."""

    def __init__(self, total: Capacity) -> None:
        self.total = total
        self._held: dict[str, tuple[Grant, tuple[int, ...]]] = {}
        self._free: Capacity | None = total

    @property
    def free(self) -> Capacity:
        """What nobody holds; never below nothing."""
        if self._free is None:
            free = replace(self.total, gpus=tuple(self.total.gpus[i] for i in self._free_gpus()))
            for grant, _ in self._held.values():
                free = free.minus(replace(grant, gpu_count=0))
            self._free = free
        return self._free

    def fits(self, grant: Grant) -> bool:
        """Whether there is room for it now."""
        return fits(grant, self.free)

    def take(self, attempt: str, grant: Grant, gpus: tuple[int, ...] | None = None) -> list[int]:
        """Reserves a grant; the indexes of its GPUs.

        gpus: those that it holds already, where an earlier agent has chosen them.
        """
        if attempt in self._held:
            return list(self._held[attempt][1])
        chosen = self._choose_gpus(grant) if gpus is None else gpus
        self._held[attempt] = (grant, chosen)
        self._free = None
        return list(chosen)

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

    def _free_gpus(self) -> list[int]:
        taken = {index for _, gpus in self._held.values() for index in gpus}
        return [index for index in range(len(self.total.gpus)) if index not in taken]
