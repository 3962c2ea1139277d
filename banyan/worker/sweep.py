"""Ending what a dead launcher has left behind, by the marks in each process's environment.

Called by the agent when its launcher has died, or when it starts where one has. It must spare
the attempts that a living launcher holds.
"""

import time
from collections.abc import Collection
from pathlib import Path

from banyan.worker import cells, tree
from banyan.worker.running import kill_trees

_GIVE_UP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01


def sweep(
    workers: Collection[str], spare: Collection[str] = (), state_directory: Path | None = None
) -> list[int]:
    """Kills the processes of all attempts that these workers started, but those to `spare`.

    state_directory: of a launcher that is dead; what its cgroups hold is killed first. Returns
    the processes that would not go. A process that has cleared its environment is not found
    where there were no cgroups: nothing tells whose it is.
    """
    if state_directory:
        cells.clear(state_directory)
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while left := [pid for pid in tree.everybody() if _is_left(pid, workers, spare)]:
        if time.monotonic() > deadline:
            return left
        kill_trees(left)
        time.sleep(_LOOK_AGAIN_SECONDS)
    return []


def _is_left(pid: int, workers: Collection[str], spare: Collection[str]) -> bool:
    if tree.variable_of(pid, tree.WORKER_VARIABLE) not in workers or tree.ended(pid):
        return False
    return tree.variable_of(pid, tree.ATTEMPT_VARIABLE) not in spare
