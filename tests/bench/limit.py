"""The machine's own limit: how many /bin/true it spawns a second on all cores, without a queue.

A C program where there is a compiler, else the same loop in Python, which says so.
"""

import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("spawnloop.c")
_TRUE = "/bin/true"
_directory = tempfile.TemporaryDirectory(prefix="banyan-bench-")  # removed at the end


@dataclass(frozen=True, slots=True)
class Limit:
    """rate: tasks a second; cpu_milliseconds: of one task, the loop around it included."""

    rate: float
    cpu_milliseconds: float
    how: str


def measure(count: int = 3000) -> Limit:
    """Spawns so many tasks, with one loop a core."""
    loops = os.cpu_count() or 1
    count -= count % loops
    program = _program()
    if program is None:
        wall, cpu = _in_python(loops, count)
        how = f"Python os.posix_spawn, {loops} processes (no C compiler)"
    else:
        said = subprocess.check_output([program, str(loops), str(count)], text=True)
        wall, cpu = map(float, said.split())
        how = f"C posix_spawn, {loops} processes"
    return Limit(count / wall, cpu / count * 1000, how)


@cache
def _program() -> str | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = Path(_directory.name) / "spawnloop"
    done = subprocess.run([compiler, "-O2", "-o", program, _SOURCE], check=False)
    return str(program) if done.returncode == 0 else None


def _in_python(loops: int, count: int) -> tuple[float, float]:
    before, begin = _children_seconds(), time.perf_counter()
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_loop, args=(count // loops,)) for _ in range(loops)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    return time.perf_counter() - begin, _children_seconds() - before


def _loop(count: int) -> None:
    for _ in range(count):
        os.waitpid(os.posix_spawn(_TRUE, [_TRUE], os.environ), 0)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
