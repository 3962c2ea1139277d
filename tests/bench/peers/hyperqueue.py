"""HyperQueue by its Python package: server, worker and submitter are three processes.

The package starts a worker only inside a process that has a server of its own. So the worker's
process starts one, which stays without work, and before it adds the worker it points the link
by which a server is found at the real one.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hyperqueue import Client, Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.ffi import get_version

from tests.bench.peers.base import TRUE, Peer, main
from tests.bench.until import until, until_true

_LINK = "hq-current"


class _SeenError(Exception):
    """Ends the package's own waiting after one look: it would look once a second."""


class HyperQueue(Peer):
    """Standard output and error of every task go to files, as the package does it by itself."""

    name = "HyperQueue (output in files)"
    version = get_version()
    durability = "none: the server's memory; a journal, flushed every 30 s, only by its own program"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._sent: list[int] = []

    def start(self) -> None:
        server, worker = self.directory / "server", self.directory / "worker"
        self._begin("serve", server)
        self._begin("work", worker, server)
        self._client = Client(server)
        (self.directory / "output").mkdir()

    def _begin(self, part: str, place: Path, *more: Path) -> None:
        place.mkdir()
        self.run([sys.executable, "-m", "tests.bench.peers.hyperqueue", part, place, *more])
        until_true((place / "ready").exists)

    def submit(self, count: int) -> None:
        job = self._new()
        for _ in range(count):
            self._add(job, ())
        self._send(job)

    def _new(self) -> Job:
        return Job(max_fails=None)

    def _add(self, job: Job, parents: Any) -> Any:
        return job.program(TRUE, cwd=self.directory / "output", deps=parents)

    def _send(self, job: Job) -> int:
        number: int = self._client.submit(job).id
        self._sent.append(number)
        return number

    def done(self) -> int:
        return self._ended(self._sent) if self._sent else 0

    def _ended(self, sent: list[int]) -> int:
        seen = [0]

        def look(jobs: dict[int, dict[str, Any]]) -> None:
            seen[0] = sum(one["finished"] for one in jobs.values())
            raise _SeenError

        with contextlib.suppress(_SeenError):
            self._client.connection.wait_for_jobs(sent, look)
        return seen[0]

    def one(self) -> None:
        job = self._new()
        self._add(job, ())
        sent = [self._send(job)]
        while not self._ended(sent):
            time.sleep(0.0005)

    def layers(self, depth: int, width: int) -> None:
        before, job, gate = self.done(), self._new(), ()
        for _ in range(depth):
            gate = [self._add(job, [self._add(job, gate) for _ in range(width)])]
        self._send(job)
        until(self.done, before + depth * (width + 1))


def _part(name: str, place: str, server: str = "") -> None:
    """The server's process, or the worker's."""
    cluster = LocalCluster(place)
    if name == "work":
        link = Path(place) / _LINK
        link.unlink()
        link.symlink_to(os.path.realpath(f"{server}/{_LINK}"))
        cluster.start_worker(WorkerConfig(cores=os.cpu_count()))
    (Path(place) / "ready").touch()
    signal.pause()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    if sys.argv[1] in ("serve", "work"):
        _part(*sys.argv[1:])
    else:
        main(HyperQueue)
