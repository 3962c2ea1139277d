"""What all peers have in common: their processes, and the three pieces of work, timed.

A peer's file makes a class of `Peer` and calls `main`. Every piece of work is /bin/true as an
external program; a join is one more /bin/true that waits for all of a layer.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench import processes
from tests.bench.until import until, until_true

TRUE = ["/bin/true"]
BIN = Path(sys.executable).parent
_IDLE_SECONDS = 0.05
_WARM_UP = 20
_PR_SET_CHILD_SUBREAPER = 36


class Peer:
    """One queue with its services and workers on two cores, in a directory of its own."""

    name = durability = ""
    version = "?"
    needs: tuple[str, ...] = ()  # programs that must be installed

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start services and workers."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what `run` did not start."""

    def submit(self, count: int) -> None:
        """So many tasks, in bulk where there is such a thing."""
        raise NotImplementedError

    def done(self) -> int:
        """How many tasks have ended so far, as the queue has recorded it."""
        raise NotImplementedError

    def one(self) -> None:
        """One task, from its submission to the submitter's knowing that it has ended."""
        raise NotImplementedError

    def layers(self, depth: int, width: int) -> None:
        """Layers of tasks, each joined by one more; returns when the last has ended."""
        raise NotImplementedError

    def run(self, command: Sequence[str | Path], **environment: str) -> "subprocess.Popen[bytes]":
        """Start a process that `end` will end, in a session of its own."""
        process = subprocess.Popen(
            [str(word) for word in command],
            env=os.environ | environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "complaints").open("ab"),
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def end(self) -> None:
        """End all that was started, the last first."""
        with contextlib.suppress(Exception):
            self.stop()
        for process in reversed(self._started):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                    break


class RedisPeer(Peer):
    """A peer whose tasks are in Redis, which here writes a snapshot now and then, without fsync."""

    needs = ("redis-server",)
    port = 27379

    def start_redis(self) -> Any:
        """A client of the started server."""
        import redis

        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self.directory]
        self.run(["redis-server", *where, "--save", "3600 1 300 100 60 10000"])
        client = redis.Redis(port=self.port)
        until_true(client.ping)
        return client


def main(make: Callable[[Path], Peer]) -> None:
    """`python -m tests.bench.peers.NAME W1 W2 DEPTH WIDTH`: prints the figures as JSON.

    W1 tasks in bulk, W2 single ones, DEPTH layers of WIDTH; 0 leaves one out.
    """
    count, singles, depth, width = map(int, sys.argv[1:5])
    # What a service starts and lets go stays below this process, where its CPU is counted.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="banyan-peer-"))
    peer = make(directory)
    missing = [program for program in peer.needs if not shutil.which(program)]
    found: dict[str, Any] = {"name": peer.name, "durability": peer.durability}
    try:
        if missing:
            found["missing"] = missing
        else:
            found |= _measured(peer, count, singles, depth, width)
            found["version"] = peer.version
    except (Exception, SystemExit) as error:
        complaints = directory / "complaints"
        told = complaints.read_text(errors="replace")[-2000:] if complaints.exists() else ""
        found["error"] = f"{type(error).__name__}: {error}\n{told}"
    finally:
        peer.end()
        _bury()
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(found), flush=True)
    os._exit(0)  # threads of a peer may not want to end


def _bury() -> None:
    """End and take leave of what came down to this process."""
    for one in processes.tree(os.getpid())[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def _measured(peer: Peer, count: int, singles: int, depth: int, width: int) -> dict[str, Any]:
    peer.start()
    before = peer.done()
    peer.submit(_WARM_UP)
    until(peer.done, before + _WARM_UP)
    found: dict[str, Any] = {}
    if count:
        before, cpu, begin = peer.done(), _cpu_seconds(), time.perf_counter()
        peer.submit(count)
        until(peer.done, before + count)
        found["w1"] = count / (time.perf_counter() - begin)
        found["cpu"] = (_cpu_seconds() - cpu) * 1000 / count
    found["w2"] = [_single(peer) for _ in range(singles)]
    if depth:
        begin = time.perf_counter()
        peer.layers(depth, width)
        found["w3"] = depth * (width + 1) / (time.perf_counter() - begin)
    return found


def _single(peer: Peer) -> float:
    time.sleep(_IDLE_SECONDS)
    begin = time.perf_counter()
    peer.one()
    return (time.perf_counter() - begin) * 1000


def _cpu_seconds() -> float:
    """Of this process, which is the submitter, and of all that it has started."""
    mine = processes.tree(os.getpid())
    return sum(one.own_seconds + one.children_seconds for one in mine)
