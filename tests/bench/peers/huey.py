"""Huey on Redis: two worker processes, results stored."""

import subprocess

import huey

from tests.bench.peers.base import BIN, TRUE, RedisPeer, main
from tests.bench.until import until

queue = huey.RedisHuey("bench", port=RedisPeer.port, notify_result=True)


@queue.task()  # type: ignore[untyped-decorator]
def work() -> int:
    """One task."""
    return subprocess.run(TRUE, check=False).returncode


@queue.task()  # type: ignore[untyped-decorator]
def join(results: list[int], depth: int, width: int) -> int:
    """The task that joins a layer, and starts the next."""
    subprocess.run(TRUE, check=False)
    if depth:
        layer(depth, width)
    return len(results)


def layer(depth: int, width: int) -> None:
    """One layer and, by its join, all that follow."""
    tasks = [work.s() for _ in range(width)]
    queue.enqueue(huey.chord(tasks, join.s(depth=depth - 1, width=width)))


class Huey(RedisPeer):
    """There is no bulk submission: one call a task."""

    name = "Huey + Redis"
    version = huey.__version__
    durability = "Redis snapshots; taken from the queue before it runs: lost with a killed worker"

    def start(self) -> None:
        self.start_redis()
        consumer = [BIN / "huey_consumer", "tests.bench.peers.huey.queue", "-k", "process"]
        self.run([*consumer, "-w", "2", "-d", "0.001", "-m", "0.01", "-n", "-q"])

    def submit(self, count: int) -> None:
        for _ in range(count):
            work()

    def done(self) -> int:
        return int(queue.result_count())

    def one(self) -> None:
        work().get(blocking=True)

    def layers(self, depth: int, width: int) -> None:
        before = self.done()
        layer(depth, width)
        until(self.done, before + depth * (width + 1))


if __name__ == "__main__":
    # The tasks are known by their module's name, which is another one here.
    from tests.bench.peers import huey as named

    main(named.Huey)
