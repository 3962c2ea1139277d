"""Ending what a dead launcher has left behind, by the marks in each process's environment.

Called by the agent when its launcher has died, or when it starts where one has. It must spare
the attempts that a living launcher holds.
"""

import os
import time
from collections.abc import Collection
from pathlib import Path

from banyan.worker import cells, groups, tree
from banyan.worker.marks import Marks
from banyan.worker.process_reader import ProcessReader
from banyan.worker.running import kill_trees

_GIVE_UP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01


def sweep(
    workers: Collection[str],
    spare: Collection[str] = (),
    state_directory: Path | None = None,
    users: Collection[int] | None = None,
) -> list[int]:
    """Kills the processes of all attempts that these workers started, but those to `spare`.

    state_directory: of a launcher that is dead; what its cgroups hold is killed first.
    users:           as whom the tasks may run; None: anybody.

    Returns the processes that would not go. A process that has cleared its environment, or whose
    environment cannot be read, is not found where there were no cgroups: nothing tells whose it is.
    """
    if state_directory:
        cells.clear(state_directory)
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    reader = ProcessReader()
    marks = Marks(reader)
    try:
        while True:
            candidates = [pid for pid in tree.everybody() if _may_be(pid, users)]
            left = [pid for pid in candidates if _is_left(marks, pid, workers, spare)]
            if not (left or reader.lacking) or time.monotonic() > deadline:
                return left
            kill_trees(left)
            time.sleep(_LOOK_AGAIN_SECONDS)
    finally:
        reader.close()


def _may_be(pid: int, users: Collection[int] | None) -> bool:
    """Whether a task can have started it: others show what they like, and are not read."""
    if pid == os.getpid():
        return False
    return users is None or tree.user_of(pid) in users or groups.is_one(tree.user_group_of(pid))


def _is_left(marks: Marks, pid: int, workers: Collection[str], spare: Collection[str]) -> bool:
    worker, attempt = marks.of(pid)
    return worker in workers and attempt not in spare and not tree.ended(pid)
