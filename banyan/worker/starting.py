"""Starting an attempt's first process in a cgroup of its own, within its bounds.

Used by the supervision. Standard library only. Nothing that the process forks may stay outside of
the cgroup.
"""

import contextlib
import traceback
from collections.abc import Container
from typing import Any, NamedTuple

from banyan.worker import tree
from banyan.worker.cell import Cell
from banyan.worker.cells import Cells
from banyan.worker.limits import Limits, OomScore
from banyan.worker.orphans import Orphans
from banyan.worker.spawning import NOT_EXECUTABLE, Answer, NotStarted, Spawned, Spawner
from banyan.worker.timers import now
from banyan.worker.wire import Message

_ROUNDS_MAX = 64
_REASON_LENGTH_MAX = 600


class Started(NamedTuple):
    """The process, and what bounds it."""

    process: Spawned
    limits: Limits
    cell: Cell | None
    failure: NotStarted | None = None  # why it must not go on: whoever follows it ends it


class Starter:
    """Of one launcher."""

    def __init__(self, cells: Cells, leaders: Container[int], orphans: Orphans) -> None:
        """leaders and orphans: the children of the launcher whose attempts run already."""
        self._cells = cells
        self._leaders = leaders
        self._orphans = orphans
        self._spawner = Spawner()
        self._oom_score = OomScore()
        self._all_confined = True  # all that were started so far, each in a cgroup of its own

    def start(self, message: Message) -> Started:
        """Starts what the agent asks for. Errors: NotStarted, and others; then there is nothing."""
        limits = Limits.from_json(message.get("limits"))
        cell = None
        if limits.by_cgroup:
            cell = self._cells.open(limits.memory_bytes, limits.processes, limits.cores)
        try:
            if limits.by_cgroup:
                self._cells.give(message.get("all_memory_bytes", 0))
            if cell and not self._cells.have_room():
                raise NotStarted(None, "tasks use all memory, or have left it in shared memory")
            if now() >= message["before"]:
                raise NotStarted(None, "the worker came to it too late")
            process = self._spawn(message, cell)
        except Exception:
            if cell:
                self._cells.close(cell)
            raise
        failure = None
        try:
            limits.apply(process.pid)
            cell = self._confined(message["attempt"], process, cell)
        except Exception as error:
            failure = as_not_started(error)
        self._all_confined = self._all_confined and cell is not None
        return Started(process, limits, cell, failure)

    def _spawn(self, message: Message, cell: Cell | None) -> Spawned:
        answer = Answer(*message["answer"]) if message.get("answer") else None
        self._cells.enter(cell)
        self._oom_score.raise_own()
        try:
            return self._spawner.spawn(
                message["argv"], message["env"], message["cwd"], self._user(message), answer
            )
        finally:
            self._oom_score.restore()
            self._cells.leave(cell)

    def _user(self, message: Message) -> dict[str, Any] | None:
        """As whom it is to run, with a group of its own where the machine has such."""
        user: dict[str, Any] | None = message.get("user")
        if not user or not user["own_groups"]:
            return user
        return {**user, "group": self._orphans.groups.draw(message["attempt"])}

    def go_home(self) -> None:
        """To be called after a number of starts: leaves the last one's directory."""
        self._spawner.go_home()

    def _confined(self, attempt: str, process: Spawned, cell: Cell | None) -> Cell | None:
        """Puts a process that has only just started into its cgroup; None where that fails.

        Unless it was born there. That may take the kernel some milliseconds: what it has
        forked meanwhile goes in too. What forks away from this for ever is found as an orphan.
        """
        if cell is None or cell.entered:
            return cell
        try:
            cell.add(process.pid)
            taken = {process.pid}
            for _ in range(_ROUNDS_MAX):
                new = self._escaped(attempt, process.pid, taken)
                if not new:
                    break
                for pid in new:
                    cell.add(pid)
                taken.update(new)
        except OSError:
            self._cells.close(cell)
            return None
        return cell

    def _escaped(self, attempt: str, leader: int, taken: set[int]) -> list[int]:
        """What has come from a new leader and is not in its cgroup yet.

        A child of the launcher that it did not start, and that is in no cgroup of an attempt,
        is of the attempt that is just being started: all others were taken in before.
        """
        strays = [
            pid
            for pid in tree.own_children()
            if pid not in self._leaders
            and not self._cells.path_of(pid)
            and self._orphans.may_be_of(attempt, pid, self._all_confined)
        ]
        return [pid for pid in tree.descendants([leader, *strays]) if pid not in taken]


def as_not_started(error: Exception) -> NotStarted:
    """What it means to a task that its start has failed, be it in a way that nobody thought of.

    What the kernel refuses us is no fault of the task; else it must not come again and again. The
    launcher's log says more.
    """
    if isinstance(error, NotStarted):
        return error
    traceback.print_exception(error)
    reason = f"it could not be started: {type(error).__name__}: {error}"
    exit_code = None if isinstance(error, OSError) else NOT_EXECUTABLE
    return NotStarted(exit_code, reason[:_REASON_LENGTH_MAX])


def bound_memory(cell: Cell | None, limits: Limits) -> None:
    """Bounds the memory of a cell that had to be without while the launcher was in it."""
    if cell and limits.memory_bytes and not cell.bound_bytes:
        with contextlib.suppress(OSError):  # then looking after it must do
            cell.bound(limits.memory_bytes)
