"""Ending what a dead launcher has left behind, by the marker in each process's environment.

Called by the agent when its launcher has died, or when it starts where one has. It must only
be given attempts that no launcher holds any more.
"""

import time

from banyan.worker import tree
from banyan.worker.running import kill_trees

_GIVE_UP_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01


def sweep(attempts: set[str]) -> list[int]:
    """Kills every process of these attempts that can be found; the pids that would not go.

    A process that has cleared its environment is not found: without a launcher or a cgroup
    nothing tells whose it is.
    """
    if not attempts:
        return []
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while left := [pid for pid in tree.marked(attempts) if not tree.ended(pid)]:
        if time.monotonic() > deadline:
            return left
        kill_trees(left)
        time.sleep(_LOOK_AGAIN_SECONDS)
    return []
