"""The attempts that a launcher holds: started, read, stopped, reaped, and nothing left of them.

Owned by the launcher's loop, which calls it when a pipe is readable, a child has ended or a
deadline has come. Standard library only. It must never report an end while a process of the
attempt lives that it can kill. Only `read` and `settle_pipes` may touch a pipe that a task can
hold: another thread goes on with the loop where they do not come back (see `pipes.py`).
"""

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from banyan.worker import memory, process_reader, remains, watching
from banyan.worker.cells import Cells
from banyan.worker.orphans import Orphans
from banyan.worker.pipes import Pipes, Step
from banyan.worker.running import OwnPeak, Running, ended_child, kill_trees, never_began
from banyan.worker.spawning import NotStarted
from banyan.worker.spool import FLUSH_BYTES, Spool, room_in
from banyan.worker.starting import Starter, as_not_started, bound_memory
from banyan.worker.successors import Successors
from banyan.worker.timers import Timers, now
from banyan.worker.wire import Message

_FLUSH_SECONDS = 0.1  # so long output may be in memory only
_LOOK_AGAIN_SECONDS = 0.05
_REAPS_MAX = 512  # in one go: chains of forks must not keep the loop from all else
_HELD_UP = "its output could not be read: somebody held the pipe, and did not let go of it"
_AGAIN, _REAP, _WATCH = "again", "reap", "watch"


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
        reader = process_reader.ProcessReader()
        self._orphans = Orphans(self._confined_in, reader)
        self._own_peak = OwnPeak()
        self._looks = memory.Looks(reader)
        self._remains = remains.Remains(cells, tell)
        self._successors = Successors()
        self._leaders: dict[int, str] = {}
        self._starter = Starter(cells, self._leaders, self._orphans)
        self._over: dict[str, list[int]] = {}  # to be read to their end; with what is left
        self.pipes = Pipes(epoll)
        self.running: dict[str, Running] = {}
        self.ended: dict[str, Message] = {}  # until the agent says that they are reported

    def held(self) -> Message:
        """All attempts, for a new agent."""
        return {
            "running": [each.held(self.ended) for each in self.running.values()],
            "ended": list(self.ended.values()),
            "waiting": self._successors.all(),
            "left_bytes": self._remains.told_bytes,
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
            spool = Spool(f"{self._outputs}/{attempt}", *room_in(message))
            started = self._starter.start(message)
        except Exception as error:  # whatever it is, it is this attempt's alone
            self._not_started(message, as_not_started(error))
            return
        running = Running(attempt, message["keep"], started, spool, self.pipes)
        running.grace_seconds = message["grace_seconds"]
        if failure := self._follow(running, started.process.writing) or started.failure:
            running.give_up(failure)
            self._kill(running)
            return
        if message["timeout_seconds"] is not None:
            self._timers.set((attempt, "timeout"), now() + message["timeout_seconds"])
        if running.begins is None:
            self._has_begun(running)
        else:
            self._timers.set((attempt, "begin"), now() + message["begin_seconds"])

    def _has_begun(self, running: Running) -> None:
        bound_memory(running.cell, running.limits)
        self._tell({"is": "started", "attempt": running.attempt, "pid": running.pid})

    def _hear_of_begin(self, running: Running, pipe: int) -> None:
        """The program of a forked process is there, or why it is not."""
        running.hear_of_begin(pipe)
        self._timers.drop((running.attempt, "begin"))
        if running.not_begun is None and not running.leader_ended:
            self._has_begun(running)

    def _does_not_begin(self, running: Running) -> None:
        """It waits for a directory or a program that does not answer, and is to end."""
        running.give_up_start()
        self._kill(running)

    def _follow(self, running: Running, writing: Iterable[int]) -> NotStarted | None:
        """Why it can't be followed, and is to end."""
        self.running[running.attempt] = running
        self._leaders[running.pid] = running.attempt
        watching.begin(running)
        self._timers.set_earlier(_WATCH, now() + watching.LOOK_SECONDS)
        return running.follow(writing)

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
            told = {**never_began(NotStarted(None, ""), time.time()), "why": why, "reason": None}
            self._never_started(waiting, told)
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
        running = self.running[self.pipes.attempt_of(pipe)]
        if pipe == running.begins:
            self._hear_of_begin(running, pipe)
            return
        if not running.read(pipe):
            return
        if running.spool.pending > FLUSH_BYTES:
            self._tell(running.output())
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
                self._tell(running.output())
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
            self._over[running.attempt] = []

    def reap(self) -> None:
        """Children have ended: reaps a number of them, the others at the next turn."""
        if self._reap_some() < _REAPS_MAX:
            self._settle(self._find_orphans)
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
            self._timers.drop((running.attempt, "begin"))
            self._timers.drop((running.attempt, "timeout"))
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
        self._cells.share(each.cell for each in self.running.values() if each.cell)
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
        if self._remains.look(self.running.values()) or self.running:
            self._timers.set(_WATCH, now() + watching.LOOK_SECONDS)

    def _end_for(self, running: Running, why: str, reason: str) -> None:
        running.reason = reason if running.why is None else running.reason
        self.stop(running.attempt, why, 0)  # also of one that has time to end in

    # --- ends ------------------------------------------------------------------------

    def _settle(self, look: Callable[[], None] | None = None) -> None:
        """Finishes the attempts of which nothing is left, and goes on killing the others."""
        closing = [each for each in self.running.values() if each.leader_ended]
        if not closing:
            return
        (look or self._look)()
        for running in closing:
            left = running.keeping(self._orphans_of(running))
            watching.look_back(running, left)
            if not left:
                self._over[running.attempt] = []
            elif running.kill_at is None or running.kill_at <= now():
                self._kill_rest(running, left)

    def _kill_rest(self, running: Running, left: list[int]) -> None:
        running.kill(left)
        self._give_up(running, left)
        self._timers.set(_AGAIN, now() + _LOOK_AGAIN_SECONDS)

    def _give_up(self, running: Running, left: list[int]) -> None:
        """Tells its end where SIGKILL has had its time, and these are left."""
        if now() >= (running.give_up_at or 0) and not running.told_ended:
            self._over.setdefault(running.attempt, left)

    def settle_pipes(self) -> None:
        """Reads what is over to its end, and tells it; closes what is to be closed.

        To be called after everything else in here, and before the next start. Where a thread is
        replaced in it, it is to be called again, and goes on.
        """
        self.pipes.close_dropped()
        while self._over:
            attempt = next(iter(self._over))
            running = self.running[attempt]
            running.drain()
            left = self._over.pop(attempt)
            if not running.told_ended:
                self._tell_ended(running, left)
            elif not left:
                self._tell({"is": "cleared", "attempt": attempt})
            if not left:
                self._forget_process(running)
            self.pipes.close_dropped()

    def go_on_without(self, step: Step) -> None:
        """In a thread that is the loop from now on: ends the attempt whose pipe held up the last.

        What that one was at when it was held up is called again.
        """
        self.pipes.go_on_without(step)
        if running := self.running.get(step.attempt):
            running.go_on_without(step)
            self._end_for(running, "output", _HELD_UP)

    def starting(self) -> set[str]:
        """Attempts whose program is not there yet."""
        return {each.attempt for each in [*self.running.values()] if each.begins is not None}

    def _forget_process(self, running: Running) -> None:
        for what in ("timeout", "begin", "kill", "flush"):
            self._timers.drop((running.attempt, what))
        running.drop_begins()
        del self.running[running.attempt]
        if running.cell:
            self._cells.close(running.cell, bool(running.left_nothing))
        if running.leader_ended and self._leaders.get(running.pid) == running.attempt:
            del self._leaders[running.pid]
        self._go_on_after(running.attempt)

    def _go_on_after(self, attempt: str) -> None:
        if successor := self._successors.of(attempt):
            self.start({**successor, "after": ""})

    def _tell_ended(self, running: Running, left: list[int]) -> None:
        told = running.ended(left, self._own_peak.kibibytes())
        running.told_ended = True
        self._tell_end(running.attempt, running.keep, {**told, "shipped": running.shipped})

    def _not_started(self, message: Message, error: NotStarted) -> None:
        self._timers.set_earlier(_WATCH, now() + watching.LOOK_SECONDS)  # what is in the way?
        self._never_started(message, never_began(error, time.time()))
        self._go_on_after(message["attempt"])

    def _never_started(self, message: Message, told: Message) -> None:
        more = {"inline": "", "shipped": (0, 0)}
        self._tell_end(message["attempt"], message["keep"], {**told, **more})

    def _tell_end(self, attempt: str, keep: Any, told: Message) -> None:
        message = {"is": "ended", "attempt": attempt, **told}
        self.ended[attempt] = {**message, "keep": keep}  # for an agent to come
        self._tell(message)

    def _look(self) -> None:
        if self._reap_some():  # to reap is cheap, and each that has ended would be looked at
            self._timers.set_earlier(_AGAIN, now() + _LOOK_AGAIN_SECONDS)
        self._find_orphans()

    def _find_orphans(self) -> None:
        all_confined = all(each.cell for each in self.running.values())
        self._orphans.look(self._leaders, self.running, all_confined)
        if left := self._orphans.of_nobody(self.running):
            kill_trees(left)

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
        cells = {each.cell.path: each.attempt for each in self.running.values() if each.cell}
        return cells.get(self._cells.path_of(pid))
