"""Dask distributed: a scheduler in the submitter's process, two worker processes."""

import logging
import subprocess
from pathlib import Path

import distributed

from tests.bench.peers.base import TRUE, Peer, main


def work(*parents: object) -> int:
    """One task."""
    return subprocess.run(TRUE, check=False).returncode


class Counter(distributed.SchedulerPlugin):  # type: ignore[misc]
    """Counts the tasks that the scheduler has seen to their end."""

    ended = 0

    def transition(
        self, key: object, start: str, finish: str, *rest: object, **more: object
    ) -> None:
        """One task changes its state."""
        self.ended += finish == "memory"


class Dask(Peer):
    """One thread for each worker process."""

    name = "Dask distributed"
    version = distributed.__version__
    durability = "none: the scheduler's memory"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._counter = Counter()
        self._kept: list[distributed.Future] = []

    def start(self) -> None:
        self._cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.ERROR,
            local_directory=str(self.directory),
        )
        self._client = distributed.Client(self._cluster)
        self._cluster.scheduler.add_plugin(self._counter)

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    def submit(self, count: int) -> None:
        self._kept = self._client.map(work, range(count), pure=False)

    def done(self) -> int:
        return self._counter.ended

    def one(self) -> None:
        self._client.submit(work, pure=False).result()

    def layers(self, depth: int, width: int) -> None:
        gate, self._kept = None, []
        for _ in range(depth):
            layer = [self._client.submit(work, gate, pure=False) for _ in range(width)]
            gate = self._client.submit(work, layer, pure=False)
        gate.result()


if __name__ == "__main__":
    from tests.bench.peers import dask as named

    main(named.Dask)
