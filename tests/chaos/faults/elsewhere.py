"""Rows of the matrix that no stroke of a run can show, and where they are shown, or why not."""

from collections.abc import Callable

from tests.chaos.faults.clock import nothing
from tests.chaos.faults.fault import Fault


def _told(text: str) -> Callable[[], str]:
    return lambda: text


_ROWS = [
    ("F19", "task-oom", "a task uses more memory than it was granted",
     "shown by tests/worker/test_worker_memory.py: the load's tasks are too small for it"),
    ("F20", "agent-oom", "the kernel kills an agent for its memory",
     "the same SIGKILL as kill-agent"),
    ("F22", "thundering-herd", "a thousand workers come back at one time",
     "a measure of load, not of truth: scripts/bench waiting"),
    ("F26", "version-skew", "workers of the last release with this server, and back",
     "needs a second release, of which there is none yet"),
    ("F27", "older-snapshot", "the database is put back to an older state",
     "it loses what was acknowledged since, as it must, so the checks of a run can't hold; "
     "shown by tests/server/test_restored.py"),
    ("F28", "stubborn-tasks", "tasks ignore SIGTERM, or leave daemons behind",
     "a tenth of the load's tasks do so in every run; tests/worker/test_stuck.py has the rest"),
]  # fmt: skip

FAULTS = [Fault(name, row, what, nothing, why_not=_told(why)) for row, name, what, why in _ROWS]
