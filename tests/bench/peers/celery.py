"""Celery on Redis: two forked workers, results stored."""

import subprocess

import celery
import redis

from tests.bench.peers.base import BIN, TRUE, RedisPeer, main

URL = f"redis://127.0.0.1:{RedisPeer.port}"
app = celery.Celery("tests.bench.peers.celery", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    task_serializer="json",
)
# The same broker without a backend: a submitter of many does not subscribe to each result.
bulk = celery.Celery("bulk", broker=f"{URL}/0", set_as_current=False)


@app.task(name="work")  # type: ignore[untyped-decorator]
def work() -> int:
    """One task."""
    return subprocess.run(TRUE, check=False).returncode


class Celery(RedisPeer):
    """Many tasks go through one producer, one message each."""

    name = "Celery + Redis"
    version = celery.__version__
    durability = "Redis snapshots; acknowledged before it runs: lost with a killed worker"

    def start(self) -> None:
        self.start_redis()
        self._results = redis.Redis(port=self.port, db=1)
        worker = [BIN / "celery", "-A", "tests.bench.peers.celery", "worker", "-P", "prefork"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.run([*worker, "-c", "2", "-l", "ERROR", *quiet])

    def submit(self, count: int) -> None:
        with bulk.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                bulk.send_task("work", producer=producer)

    def done(self) -> int:
        return int(self._results.dbsize())

    def one(self) -> None:
        work.delay().get()

    def layers(self, depth: int, width: int) -> None:
        steps = []
        for _ in range(depth):
            steps += [celery.group(work.si() for _ in range(width)), work.si()]
        celery.chain(*steps).apply_async().get(timeout=600)


if __name__ == "__main__":
    from tests.bench.peers import celery as named

    main(named.Celery)
