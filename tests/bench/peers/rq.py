"""RQ on Redis: two workers that do not fork for a task, which is the quicker of its two kinds."""

import subprocess

import rq
from rq.job import Dependency
from rq.version import VERSION

from tests.bench.peers.base import BIN, TRUE, RedisPeer, main
from tests.bench.until import until

_PIECE = 1000


def work() -> int:
    """One task."""
    return subprocess.run(TRUE, check=False).returncode


class Rq(RedisPeer):
    """Bulk submission in pipelines of 1,000."""

    name = "RQ + Redis (SimpleWorker)"
    version = VERSION
    durability = "Redis snapshots; a killed worker's are found by upkeep and marked as failed"

    def start(self) -> None:
        self._redis = self.start_redis()
        self._queue = rq.Queue(connection=self._redis)
        pool = [BIN / "rq", "worker-pool", "-n", "2", "-q", "-l", "ERROR"]
        where = ["-u", f"redis://127.0.0.1:{self.port}"]
        self.run([*pool, *where, "-w", "rq.worker.SimpleWorker"])

    def submit(self, count: int) -> None:
        for start in range(0, count, _PIECE):
            ready = [rq.Queue.prepare_data(work) for _ in range(min(_PIECE, count - start))]
            with self._redis.pipeline() as pipe:
                self._queue.enqueue_many(ready, pipeline=pipe)
                pipe.execute()

    def done(self) -> int:
        return int(self._redis.zcard("rq:finished:default"))

    def one(self) -> None:
        self._queue.enqueue(work).latest_result(timeout=60)

    def layers(self, depth: int, width: int) -> None:
        before, gate = self.done(), None
        for _ in range(depth):
            layer = [self._queue.enqueue(work, depends_on=gate) for _ in range(width)]
            gate = self._queue.enqueue(work, depends_on=Dependency(jobs=layer))
        until(self.done, before + depth * (width + 1))


if __name__ == "__main__":
    from tests.bench.peers import rq as named

    main(named.Rq)
