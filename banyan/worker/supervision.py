"""The attempts that a launcher holds: started, read, stopped, reaped, and nothing left of them.

Owned by the launcher's loop, which calls it when a pipe is readable, a child has ended or a
deadline has come. Standard library only. It must never report an end while a process of the
attempt lives that it can kill.
"""

import base64
import contextlib
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from banyan.worker import tree, watching
from banyan.worker.cells import Cell, Cells
from banyan.worker.limits import Limits
from banyan.worker.orphans import Orphans
from banyan.worker.running import OwnPeak, Running, kill_trees
from banyan.worker.spawning import NotStarted, Spawned, Spawner
from banyan.worker.spool import Spool
from banyan.worker.successors import Successors
from banyan.worker.timers import Timers, now
from banyan.worker.wire import Message

_FLUSH_SECONDS = 0.1  # so long output may be in memory only
_FLUSH_BYTES = 1 << 20  # or so much of it
_LOOK_AGAIN_SECONDS = 0.05
_GIVE_UP_SECONDS = 10.0  # what SIGKILL has not ended by then is reported as left
_AGAIN = "again"
_WATCH = "watch"


class Supervision:
    """Attempts by id, and what is to happen to them when."""

    def __init__(
        self,
        outputs: Path,
        cells: Cells,
        epoll: select.epoll,
        timers: Timers,
        tell: Callable[[Message], None],
    ) -> None:
        """`tell` hands a message to the agent, if there is one."""
        self._outputs = str(outputs)
        self._cells = cells
        self._epoll = epoll
        self._timers = timers
        self._tell = tell
        self._spawner = Spawner()
        self._orphans = Orphans()
        self._own_peak = OwnPeak()
        self._successors = Successors()
        self._leaders: dict[int, str] = {}
        self.pipes: dict[int, Running] = {}
        self.running: dict[str, Running] = {}
        self.ended: dict[str, Message] = {}  # until the agent says that they are reported

    def held(self) -> Message:
        """All attempts, for a new agent."""
        return {
            "running": [
                {
                    "attempt": each.attempt,
                    "keep": each.keep,
                    "size": each.spool.flush(),
                    "shipped": each.shipped,
                }
                for each in self.running.values()
            ],
            "ended": list(self.ended.values()),
            "waiting": self._successors.all(),
        }

    @property
    def waiting(self) -> list[str]:
        """The attempts that are to start when another has ended."""
        return self._successors.attempts

    # --- what the agent asks for -----------------------------------------------------

    def start(self, message: Message) -> None:
        """Starts a command, unless its attempt is known or `before` has passed.

        Where it names an attempt that it comes `after`, only when that has ended.
        """
        attempt, after = message["attempt"], message.get("after") or ""
        if attempt in self.running or attempt in self.ended or attempt in self._successors:
            return
        if after in self.running or after in self._successors:
            self._successors.add(after, message)
            return
        limits = Limits.from_json(message.get("limits"))
        cell = self._cells.open(limits.memory_bytes) if limits.by_cgroup else None
        try:
            if now() >= message["before"]:
                raise NotStarted(None, "the worker came to it too late")
            with self._cells.inside(cell):
                process = self._spawner.spawn(
                    message["argv"], message["env"], message["cwd"], message.get("user")
                )
        except NotStarted as error:
            if cell:
                self._cells.close(cell)
            self._not_started(message, error)
            return
        cell = self._confined(attempt, process, cell)
        if cell and not cell.bound_bytes:
            with contextlib.suppress(OSError):  # then looking after it must do
                cell.bound(limits.memory_bytes)
        limits.apply(process.pid)
        spool = Spool(self._output_of(attempt), message["log_bytes_max"])
        running = Running(attempt, message["keep"], process, spool, limits, cell, self._close)
        running.grace_seconds = message["grace_seconds"]
        self._follow(running)
        if message["timeout_seconds"] is not None:
            self._timers.set((attempt, "timeout"), now() + message["timeout_seconds"])
        self._tell({"is": "started", "attempt": attempt, "pid": running.pid})

    def _confined(self, attempt: str, process: Spawned, cell: Cell | None) -> Cell | None:
        """Puts a process that has only just started into its cgroup; None where that fails.

        Unless it was born there. That may take the kernel some milliseconds: what it has
        forked meanwhile goes in too.
        """
        if cell is None or cell.entered:
            return cell
        try:
            cell.add(process.pid)
            taken = {process.pid}
            while new := self._escaped(attempt, process.pid, taken):
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
            for pid in tree.children(os.getpid())
            if pid not in self._leaders
            and pid not in self._orphans
            and tree.variable_of(pid, tree.ATTEMPT_VARIABLE) in (None, attempt)
            and not self._cells.hold(pid)
        ]
        return [pid for pid in tree.descendants([leader, *strays]) if pid not in taken]

    def _follow(self, running: Running) -> None:
        self.running[running.attempt] = running
        self._leaders[running.pid] = running.attempt
        for pipe in running.pipes:
            self.pipes[pipe] = running
            self._epoll.register(pipe, select.EPOLLIN)
        watching.begin(running)
        self._timers.set_earlier(_WATCH, now() + watching.LOOK_SECONDS)

    def _close(self, pipe: int) -> None:
        """Closes a pipe, and tells the kernel first that nothing is to be heard of it.

        A process that is just being started has copies of all that is open here until its program
        is there. Such a copy would keep the old pipe watched, under a number that may be another
        pipe's by then: who reads that waits for ever.
        """
        self._epoll.unregister(pipe)
        del self.pipes[pipe]
        os.close(pipe)

    def go_home(self) -> None:
        """To be called after a number of starts: leaves the last one's directory."""
        self._spawner.go_home()

    def withdraw(self, attempt: str) -> None:
        """Drops an attempt that still waits for another to end; one that runs goes on."""
        if self._successors.withdraw(attempt):
            self._tell({"is": "withdrawn", "attempt": attempt})

    def stop(self, attempt: str, why: str, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL after the grace; a second call can only shorten the grace."""
        if waiting := self._successors.withdraw(attempt):
            self._never_started(waiting, why, None)
            return
        running = self.running.get(attempt)
        if running is None or (running.leader_ended and running.why is None):
            return  # it was over already: what is left of it is being killed
        kill_at = now() + grace_seconds
        if running.why is None:
            running.why = why
            running.kill_at = kill_at
            if grace_seconds > 0:
                self._look()
                running.terminate(self._orphans_of(running))
        running.kill_at = min(running.kill_at or kill_at, kill_at)
        self._timers.set((attempt, "kill"), running.kill_at)

    def shipped(self, attempt: str, position: int, offset: int) -> None:
        """Keeps how much of the output is delivered, for an agent to come."""
        if running := self.running.get(attempt):
            running.shipped = (position, offset)
        if ended := self.ended.get(attempt):
            ended["shipped"] = (position, offset)

    def forget(self, attempt: str) -> None:
        """Drops an ended attempt and its output."""
        ended = self.ended.pop(attempt, None)
        if ended is not None and ended["inline"] is None:
            with contextlib.suppress(OSError):
                os.unlink(self._output_of(attempt))

    # --- what the loop notices -------------------------------------------------------

    def read(self, pipe: int) -> None:
        """A pipe is readable."""
        running = self.pipes[pipe]
        if not running.read(pipe):
            return
        if running.spool.pending > _FLUSH_BYTES:
            self._tell_output(running)
        else:
            self._timers.set_earlier((running.attempt, "flush"), now() + _FLUSH_SECONDS)

    def due(self, key: Any) -> None:
        """A deadline has come."""
        if key == _AGAIN:
            self._settle()
        elif key == _WATCH:
            self._watch()
        elif running := self.running.get(key[0]):
            if key[1] == "timeout":
                self.stop(running.attempt, "timeout", running.grace_seconds)
            elif key[1] == "flush":
                self._tell_output(running)
            elif running.leader_ended:
                self._settle()
            else:
                self._look()
                running.kill(self._orphans_of(running))
                self._timers.set(key, now() + _LOOK_AGAIN_SECONDS)

    def reap(self) -> None:
        """Children have ended."""
        while ended := _ended_child():
            running = self.running.get(self._leaders.get(ended, ""))
            if running and not running.leader_ended:
                running.reap()
                self._timers.drop((running.attempt, "timeout"))
                if running.why is None and watching.out_of_memory(running):
                    running.why, running.reason = "oom", watching.kernel_said(running)
                continue
            _, _, usage = os.wait4(ended, 0)
            owner = self.running.get(self._orphans.reaped(ended) or "")
            if owner:
                owner.count(usage)
        self._settle()

    def _watch(self) -> None:
        """Looks after the memory of what runs; what uses too much is killed at once."""
        self._look()
        for running in [each for each in self.running.values() if not each.leader_ended]:
            orphans = self._orphans_of(running)
            reason = watching.too_large(running, orphans)
            if reason:
                running.reason = reason if running.why is None else running.reason
                self.stop(running.attempt, "oom", 0)  # also of one that has time to end in
            elif sample := watching.sample(running, orphans):
                self._tell(sample)
        if self.running:
            self._timers.set(_WATCH, now() + watching.LOOK_SECONDS)

    # --- ends ------------------------------------------------------------------------

    def _settle(self) -> None:
        """Finishes the attempts of which nothing is left, and goes on killing the others."""
        closing = [each for each in self.running.values() if each.leader_ended]
        if not closing:
            return
        self._look()
        for running in closing:
            left = self._orphans_of(running)
            if not left:
                self._finish(running)
            elif running.kill_at is None or running.kill_at <= now():
                self._kill_rest(running, left)

    def _kill_rest(self, running: Running, left: list[int]) -> None:
        running.kill(left)
        if running.give_up_at is None:
            running.give_up_at = now() + _GIVE_UP_SECONDS
        elif now() >= running.give_up_at and not running.told_ended:
            self._tell_ended(running, left)
        self._timers.set(_AGAIN, now() + _LOOK_AGAIN_SECONDS)

    def _finish(self, running: Running) -> None:
        if running.told_ended:
            self._tell({"is": "cleared", "attempt": running.attempt})
        else:
            self._tell_ended(running, [])
        for what in ("timeout", "kill", "flush"):
            self._timers.drop((running.attempt, what))
        del self.running[running.attempt]
        if running.cell:
            self._cells.close(running.cell)
        if self._leaders.get(running.pid) == running.attempt:
            del self._leaders[running.pid]
        self._go_on_after(running.attempt)

    def _go_on_after(self, attempt: str) -> None:
        if successor := self._successors.of(attempt):
            self.start({**successor, "after": ""})

    def _tell_ended(self, running: Running, left: list[int]) -> None:
        running.drain()
        inline = running.spool.finish()
        told = running.ended(left, self._own_peak.kibibytes())
        told["inline"] = None if inline is None else base64.b64encode(inline).decode()
        running.told_ended = True
        told["shipped"] = running.shipped
        self._tell_end(running.attempt, running.keep, told)

    def _not_started(self, message: Message, error: NotStarted) -> None:
        why = None if error.exit_code else "not_started"
        self._never_started(message, why, error.reason, error.exit_code)
        self._go_on_after(message["attempt"])

    def _never_started(
        self, message: Message, why: str | None, reason: str | None, code: int | None = None
    ) -> None:
        told = {
            "code": code,
            "signal": None,
            "why": why,
            "time_ended": time.time(),
            "cpu_seconds": 0.0,
            "reason": reason,
            "inline": "",
            "shipped": (0, 0),
        }
        self._tell_end(message["attempt"], message["keep"], told)

    def _tell_end(self, attempt: str, keep: Any, told: Message) -> None:
        self.ended[attempt] = {"is": "ended", "attempt": attempt, "keep": keep, **told}
        self._tell(self.ended[attempt])

    def _tell_output(self, running: Running) -> None:
        size = running.spool.flush()
        self._tell({"is": "output", "attempt": running.attempt, "size": size})

    def _output_of(self, attempt: str) -> str:
        return f"{self._outputs}/{attempt}"

    def _look(self) -> None:
        self._orphans.look(self._leaders, self.running)
        kill_trees(self._orphans.of_nobody(self.running))

    def _orphans_of(self, running: Running) -> list[int]:
        """What lives of an attempt beside its leader; with a cgroup nothing is missing."""
        confined = running.cell.pids() if running.cell else []
        left = {pid for pid in confined if pid != running.pid or running.leader_ended}
        return [*left.union(self._strays_of(running))]

    def _strays_of(self, running: Running) -> list[int]:
        if not self._orphans:
            return []
        over = [each.attempt for each in self.running.values() if each.leader_ended]
        return self._orphans.of(running.attempt, [*over, running.attempt], self.running)


def _ended_child() -> int | None:
    """A child that has ended and still keeps its number."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None
