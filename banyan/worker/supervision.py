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

from banyan.worker import memory, watching
from banyan.worker.cells import Cells
from banyan.worker.forking import failure_in
from banyan.worker.orphans import Orphans
from banyan.worker.pipes import Pipes
from banyan.worker.running import OwnPeak, Running, ended_child, kill_trees
from banyan.worker.spawning import NOT_EXECUTABLE, NotStarted
from banyan.worker.spool import Spool
from banyan.worker.starting import Starter, bound_memory
from banyan.worker.successors import Successors
from banyan.worker.timers import Timers, now
from banyan.worker.wire import Message

_FLUSH_SECONDS = 0.1  # so long output may be in memory only
_FLUSH_BYTES = 1 << 20  # or so much of it
_LOOK_AGAIN_SECONDS = 0.05
_REAPS_MAX = 512  # in one go: chains of forks must not keep the loop from all else
_HELD_UP = "its output could not be read: it was writing from memory that did not answer"
_AGAIN = "again"
_REAP = "reap"
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
        self._timers = timers
        self._tell = tell
        self._orphans = Orphans(self._confined_in)
        self._own_peak = OwnPeak()
        self._looks = memory.Looks()
        self._successors = Successors()
        self._leaders: dict[int, str] = {}
        self._reads = Pipes(epoll, lambda: bool(self.pipes))
        self._starter = Starter(cells, self._leaders, self._orphans)
        self.pipes: dict[int, Running] = {}
        self.running: dict[str, Running] = {}
        self.ended: dict[str, Message] = {}  # until the agent says that they are reported

    def held(self) -> Message:
        """All attempts, for a new agent."""
        return {
            "running": [each.held(self.ended) for each in self.running.values()],
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
        try:
            started = self._starter.start(message)
        except NotStarted as error:
            self._not_started(message, error)
            return
        spool = Spool(f"{self._outputs}/{attempt}", message["log_bytes_max"])
        running = Running(attempt, message["keep"], started, spool, self._read, self._close)
        running.grace_seconds = message["grace_seconds"]
        self._follow(running)
        if message["timeout_seconds"] is not None:
            self._timers.set((attempt, "timeout"), now() + message["timeout_seconds"])
        if running.begins is None:
            self._has_begun(running)
        else:
            self._timers.set((attempt, "begin"), now() + message["begin_seconds"])

    def _has_begun(self, running: Running) -> None:
        bound_memory(running.cell, running.limits)
        self._tell({"is": "started", "attempt": running.attempt, "pid": running.pid})

    def _heard_of_begin(self, running: Running, pipe: int) -> None:
        """The program of a forked process is there, or why it is not."""
        with contextlib.suppress(BlockingIOError):  # it died without a word; see `Spawned`
            running.not_begun = running.not_begun or failure_in(self._read, pipe)
        running.begins = None
        self._close(pipe)
        self._timers.drop((running.attempt, "begin"))
        if running.not_begun is None and not running.leader_ended:
            self._has_begun(running)

    def _does_not_begin(self, running: Running) -> None:
        """It waits for a directory or a program that does not answer, and is to end."""
        reason = "its cwd or its program is where nobody answers"
        running.not_begun = NotStarted(NOT_EXECUTABLE, reason)
        running.kill_at = now()
        self._kill(running)

    def _follow(self, running: Running) -> None:
        self.running[running.attempt] = running
        self._leaders[running.pid] = running.attempt
        for pipe in running.all_pipes:
            self.pipes[pipe] = running
            self._reads.follow(pipe)
        watching.begin(running)
        self._timers.set_earlier(_WATCH, now() + watching.LOOK_SECONDS)

    def _read(self, pipe: int, most: int) -> bytes:
        data = self._reads.read(pipe, most)
        if pipe in self._reads.freed:
            self._end_for(self.pipes[pipe], "output", _HELD_UP)
        return data

    def _close(self, pipe: int) -> None:
        del self.pipes[pipe]
        self._reads.close(pipe)

    def go_home(self) -> None:
        """To be called after a number of starts: leaves the last one's directory."""
        self._starter.go_home()

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
                os.unlink(f"{self._outputs}/{attempt}")

    # --- what the loop notices -------------------------------------------------------

    def read(self, pipe: int) -> None:
        """A pipe is readable."""
        running = self.pipes[pipe]
        if pipe == running.begins:
            self._heard_of_begin(running, pipe)
            return
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
        elif key == _REAP:
            self.reap()
        elif key == _WATCH:
            self._watch()
        elif running := self.running.get(key[0]):
            if key[1] == "timeout":
                self.stop(running.attempt, "timeout", running.grace_seconds)
            elif key[1] == "flush":
                self._tell_output(running)
            elif key[1] == "begin":
                self._does_not_begin(running)
            elif running.leader_ended:
                self._settle()
            else:
                self._kill(running)

    def _kill(self, running: Running) -> None:
        """SIGKILL, also to a leader that does not end; it is told as others that stay are.

        Whose leader somebody traces may wait for ever to hear of its end: see `keeping`.
        """
        self._look()
        orphans = self._orphans_of(running)
        running.kill(orphans)
        self._timers.set((running.attempt, "kill"), now() + _LOOK_AGAIN_SECONDS)
        left = running.keeping([running.pid, *orphans])
        if left:
            self._give_up(running, left)
        else:
            self._finish(running)

    def reap(self) -> None:
        """Children have ended: reaps a number of them, the others at the next turn."""
        if self._reap_some() < _REAPS_MAX:
            self._settle()
            return
        self._timers.set(_REAP, now())
        self._timers.set_earlier(_AGAIN, now() + _LOOK_AGAIN_SECONDS)

    def _reap_some(self) -> int:
        for number in range(_REAPS_MAX):
            ended = ended_child()
            if ended is None:
                return number
            self._reap(ended)
        return _REAPS_MAX

    def _reap(self, ended: int) -> None:
        running = self.running.get(self._leaders.get(ended, ""))
        if running and not running.leader_ended:
            running.reap()
            if running.begins is not None:
                self._heard_of_begin(running, running.begins)
            self._timers.drop((running.attempt, "timeout"))
            if running.why is None and watching.out_of_memory(running):
                running.why, running.reason = "oom", watching.kernel_said(running)
            return
        if not running:
            self._leaders.pop(ended, None)
        _, _, usage = os.wait4(ended, 0)
        if owner := self.running.get(self._orphans.reaped(ended) or ""):
            owner.count(usage)

    def _watch(self) -> None:
        """Looks after the memory of what runs; what uses too much is killed at once."""
        self._look()
        self._looks.begin_turn()
        for running in [each for each in self.running.values() if each.is_there]:
            pids = watching.processes(running, self._orphans.surely_of(running.attempt))
            if not running.cell:
                self._orphans.note(running.attempt, pids)
            if reason := watching.too_large(running, pids, self._looks):
                self._end_for(running, "oom", reason)
            elif reason := watching.too_many(running, pids):
                self._end_for(running, "processes", reason)
            elif sample := watching.sample(running, pids, self._looks):
                self._tell(sample)
        if crowding := watching.crowding(self._cells, self.running.values()):
            self._end_for(crowding[0], "processes", crowding[1])
        unsure = self._orphans.unsure(self.running)
        kill_trees(watching.strays_too_large(unsure, self.running, self._looks))
        if self.running:
            self._timers.set(_WATCH, now() + watching.LOOK_SECONDS)

    def _end_for(self, running: Running, why: str, reason: str) -> None:
        running.reason = reason if running.why is None else running.reason
        self.stop(running.attempt, why, 0)  # also of one that has time to end in

    # --- ends ------------------------------------------------------------------------

    def _settle(self) -> None:
        """Finishes the attempts of which nothing is left, and goes on killing the others."""
        closing = [each for each in self.running.values() if each.leader_ended]
        if not closing:
            return
        self._look()
        for running in closing:
            left = running.keeping(self._orphans_of(running))
            if not left:
                self._finish(running)
            elif running.kill_at is None or running.kill_at <= now():
                self._kill_rest(running, left)

    def _kill_rest(self, running: Running, left: list[int]) -> None:
        running.kill(left)
        self._give_up(running, left)
        self._timers.set(_AGAIN, now() + _LOOK_AGAIN_SECONDS)

    def _give_up(self, running: Running, left: list[int]) -> None:
        """Tells its end where SIGKILL has had its time, and these are left."""
        if now() >= (running.give_up_at or 0) and not running.told_ended:
            self._tell_ended(running, left)

    def _finish(self, running: Running) -> None:
        self._orphans.clear_after(running.attempt)
        if running.told_ended:
            self._tell({"is": "cleared", "attempt": running.attempt})
        else:
            self._tell_ended(running, [])
        for what in ("timeout", "begin", "kill", "flush"):
            self._timers.drop((running.attempt, what))
        del self.running[running.attempt]
        if running.cell:
            self._cells.close(running.cell)
        if running.leader_ended and self._leaders.get(running.pid) == running.attempt:
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

    def _look(self) -> None:
        if self._reap_some():  # to reap is cheap, and each that has ended would be looked at
            self._timers.set_earlier(_AGAIN, now() + _LOOK_AGAIN_SECONDS)
        all_confined = all(each.cell for each in self.running.values())
        self._orphans.look(self._leaders, self.running, all_confined)
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

    def _confined_in(self, pid: int) -> str | None:
        path = self._cells.path_of(pid)
        cells = {each.cell.path: each.attempt for each in self.running.values() if each.cell}
        return cells.get(path)
