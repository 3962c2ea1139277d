"""Dramatiq on Redis: two processes of one thread, results stored."""

import subprocess

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as Barriers
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as Stored

from tests.bench.peers.base import BIN, TRUE, RedisPeer, main

URL = f"redis://127.0.0.1:{RedisPeer.port}"
_LAST = redis.Redis(port=RedisPeer.port, db=3)
broker = RedisBroker(url=f"{URL}/0")
broker.add_middleware(Results(backend=Stored(url=f"{URL}/1"), store_results=True))
broker.add_middleware(GroupCallbacks(Barriers(url=f"{URL}/2")))
dramatiq.set_broker(broker)


@dramatiq.actor
def work() -> int:
    """One task."""
    return subprocess.run(TRUE, check=False).returncode


@dramatiq.actor
def join(depth: int, width: int) -> None:
    """The task that joins a layer, and starts the next."""
    subprocess.run(TRUE, check=False)
    if depth:
        layer(depth, width)
    else:
        _LAST.lpush("over", 1)


def layer(depth: int, width: int) -> None:
    """One layer and, by its join, all that follow."""
    group = dramatiq.group(work.message() for _ in range(width))
    group.add_completion_callback(join.message(depth - 1, width))
    group.run()


class Dramatiq(RedisPeer):
    """There is no bulk submission: one call a task."""

    name = "Dramatiq + Redis"
    version = dramatiq.__version__
    durability = (
        "Redis snapshots; acknowledged after it ran: a killed worker's come back in a minute"
    )

    def start(self) -> None:
        self.start_redis()
        self._results = redis.Redis(port=self.port, db=1)
        workers = [BIN / "dramatiq", "tests.bench.peers.dramatiq", "-p", "2", "-t", "1"]
        self.run(workers, dramatiq_queue_prefetch="64")

    def submit(self, count: int) -> None:
        for _ in range(count):
            work.send()

    def done(self) -> int:
        return int(self._results.dbsize())

    def one(self) -> None:
        work.send().get_result(block=True)

    def layers(self, depth: int, width: int) -> None:
        layer(depth, width)
        _LAST.brpop("over")


if __name__ == "__main__":
    from tests.bench.peers import dramatiq as named

    main(named.Dramatiq)
