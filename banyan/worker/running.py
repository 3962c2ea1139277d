"""One attempt as its launcher sees it: a leader, two pipes, a spool, and how it is to end.

Used by the launcher only; standard library only. It must never signal a process by a number
that may have become another's: the leader and its group only until the leader is reaped.
"""

import base64
import contextlib
import os
import signal
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from banyan.worker import tree
from banyan.worker.forking import failure_in
from banyan.worker.pipes import Pipes, Step
from banyan.worker.spawning import NOT_EXECUTABLE, NotStarted
from banyan.worker.spool import ANSWER, STDERR, STDOUT, Spool
from banyan.worker.starting import Started, as_not_started
from banyan.worker.timers import now

_READ_BYTES = 1 << 16
_OWN_PEAK_SECONDS = 1.0
_OWN_PEAK_SLACK_KIBIBYTES = 1024
_HOLDS_MAX = 16  # times that a tree is looked through for what has forked away
_GIVE_UP_SECONDS = 10.0  # what SIGKILL has not ended by then is reported as left
_DRAIN_READS = 64  # more than a pipe holds; those who would write on are dead by then


class Running:
    """An attempt from its start until the agent forgets it."""

    def __init__(
        self, attempt: str, keep: Any, started: Started, spool: Spool, pipes: Pipes
    ) -> None:
        """`keep` is what the agent wants to be told again, should it be a new one.

        pipes: those of all attempts.
        """
        process, self.limits, self.cell, _ = started
        self._all_pipes = pipes
        self.attempt = attempt
        self.keep = keep
        self.pid = process.pid
        self.begins = process.begins  # a pipe, as long as its program is not there
        self._by_user = process.by_user
        self.not_begun: NotStarted | None = None  # why it never was
        self.pipes = {process.stdout: STDOUT, process.stderr: STDERR}
        if process.answer is not None:
            self.pipes[process.answer] = ANSWER
        self.spool = spool
        self.why: str | None = None  # what stopped it, where it did not end by itself
        self.kill_at: float | None = None  # from then on SIGKILL
        self.status: int | None = None  # of the leader, as `wait` says it
        self.grace_seconds = 0.0  # between SIGTERM and SIGKILL, where its own time is up
        self.give_up_at: float | None = None  # from then on reported with what is left
        self.spent: list[int] = []  # processes that stay, and have nothing any more
        self.left_nothing: bool | None = None  # when its leader ended, see `watching.look_back`
        self.told_ended = False
        self.shipped = (0, 0)  # position in the spool and offset in the output, delivered
        self.time_started = time.time()
        self.cpu_seconds = 0.0
        self.peak_kibibytes = 0
        self.time_ended = 0.0
        self.reason: str | None = None  # for being stopped, where there is more to say
        self.peak_bytes = 0  # of the whole tree, as far as it was looked at
        self.looked_at_bytes = 0  # held when it was last looked at closely
        self.sampled_at = self.sample_at = self.sampled_cpu_seconds = 0.0

    @property
    def leader_ended(self) -> bool:
        """True once the leader is reaped."""
        return self.status is not None

    @property
    def is_there(self) -> bool:
        """True while its program is there, for all that is known."""
        return not self.leader_ended and self.begins is None

    @property
    def is_being_killed(self) -> bool:
        """True once nobody waits for it to end by itself."""
        return self.leader_ended or (self.kill_at is not None and self.kill_at <= now())

    def follow(self, writing: Iterable[int]) -> NotStarted | None:
        """Lets the loop hear of its pipes; why that can't be, and it is to end.

        writing: the ends that are the process's alone.
        """
        begins = [] if self.begins is None else [self.begins]
        try:
            self._all_pipes.follow([*self.pipes, *begins], self.attempt, writing)
        except OSError as error:
            return as_not_started(error)
        return None

    def held(self, ended: Container[str]) -> dict[str, Any]:
        """What a new agent is told of it. ended: attempts whose end is still to be reported."""
        return {
            "attempt": self.attempt,
            "keep": self.keep,
            "size": self.spool.flush(),
            "shipped": self.shipped,
            "reported": self.told_ended and self.attempt not in ended,
        }

    def output(self) -> dict[str, Any]:
        """What the agent is told of its output, which is in the file then."""
        told = {"is": "output", "attempt": self.attempt, "size": self.spool.flush()}
        return {**told, **self._put_back()}

    def _put_back(self) -> dict[str, Any]:
        """Whether the file of its output was removed by somebody, since it was asked last."""
        put_back, self.spool.put_back = self.spool.put_back, False
        return {"put_back": True} if put_back else {}

    def read(self, pipe: int) -> bool:
        """Takes what a readable pipe holds; False where nothing came, or at its end (then dropped).

        Nothing comes where the task has read its own output itself before us.
        """
        try:
            data = self._all_pipes.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.spool.add(self.pipes[pipe], data)
            return True
        del self.pipes[pipe]
        self._all_pipes.drop(pipe)
        return False

    def hear_of_begin(self, pipe: int) -> None:
        """Reads from the pipe `begins` that its program is there, or why it is not."""
        with contextlib.suppress(BlockingIOError):  # it died without a word; see `Spawned`
            why = failure_in(self._all_pipes.read, pipe)
            self.not_begun = self.not_begun or why
        self.begins = None
        self._all_pipes.drop(pipe)

    def drain(self) -> None:
        """Takes what is left in the pipes, and drops them; called again where it was broken off."""
        if self.begins is not None and self.leader_ended:
            self.hear_of_begin(self.begins)
        for pipe in list(self.pipes):
            for _ in range(_DRAIN_READS):
                if not self.read(pipe):
                    break
            if self.pipes.pop(pipe, None):
                self._all_pipes.drop(pipe)

    def go_on_without(self, step: Step) -> None:
        """Forgets a pipe that is held."""
        if step.reads and self.pipes.pop(step.pipe, None) is None:
            self.begins = None

    def give_up_start(self) -> None:
        """It has no program for too long, and is to be killed.

        Unless it has not become its user yet, which is no fault of the task.
        """
        if self._by_user and tree.user_group_of(self.pid) == os.getgid():
            why = NotStarted(None, "the worker's machine makes no namespaces in time")
        else:
            why = NotStarted(NOT_EXECUTABLE, "its cwd or its program is where nobody answers")
        self.give_up(why)

    def give_up(self, why: NotStarted) -> None:
        """It must not begin, and is to be killed."""
        self.not_begun = why
        self.kill_at = now()

    def drop_begins(self) -> None:
        """Waits for its program no more."""
        if self.begins is not None:
            self._all_pipes.drop(self.begins)
            self.begins = None

    def terminate(self, orphans: Iterable[int]) -> None:
        """SIGTERM, once, to every process of the tree; SIGCONT so that stopped ones hear it."""
        roots = list(orphans)
        if not self.leader_ended:
            send_to_group(self.pid, signal.SIGTERM)
            roots.append(self.pid)
        tree_pids = roots if self.cell else tree.descendants(roots)
        others = [pid for pid in tree_pids if not self._in_group(pid)]
        send(others, signal.SIGTERM)
        if not self.leader_ended:
            send_to_group(self.pid, signal.SIGCONT)
        send(others, signal.SIGCONT)

    def kill(self, orphans: Iterable[int]) -> None:
        """SIGKILL to every process of the tree; held still first, so that none forks away.

        Of what is in a cgroup no tree is walked: thousands would keep the launcher from all else.
        """
        self.give_up_at = self.give_up_at or now() + _GIVE_UP_SECONDS
        inside: set[int] = set()
        if self.cell:
            inside.update(self.cell.pids())
            self.cell.kill()
        roots = [pid for pid in orphans if pid not in inside]
        if not self.leader_ended and self.pid not in inside:
            send_to_group(self.pid, signal.SIGSTOP)
            roots.append(self.pid)
        if roots:
            kill_trees(roots)
        if not self.leader_ended:
            send_to_group(self.pid, signal.SIGKILL)

    def keeping(self, left: list[int]) -> list[int]:
        """Of the processes that are left those that keep something, they or what is below them.

        Only when SIGKILL has had its time: to have nothing any more is the way of all that end.
        """
        if self.give_up_at is None or now() < self.give_up_at:
            return left
        self.spent = [pid for pid in left if all(map(tree.spent, tree.descendants([pid])))]
        return [pid for pid in left if pid not in self.spent]

    def reap(self) -> None:
        """Reaps the ended leader."""
        if self.why is None:
            send_to_group(self.pid, signal.SIGKILL)  # the last moment that the number is ours
        _, self.status, usage = os.wait4(self.pid, 0)
        self.time_ended = time.time()
        self.count(usage)

    def count(self, usage: Any) -> None:
        """Adds what a process of this attempt has used."""
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        self.peak_kibibytes = max(self.peak_kibibytes, usage.ru_maxrss)

    def ended(self, left: list[int], own_peak_kibibytes: int) -> dict[str, Any]:
        """What the agent is told of the end.

        A process starts with the launcher's own peak as its peak (the kernel hands it on
        through `vfork`): a peak that is not above that is unknown, and left out.
        """
        inline = self.spool.finish()  # which may bring trouble to tell
        told = self._ended(left, own_peak_kibibytes)
        told["inline"] = None if inline is None else base64.b64encode(inline).decode()
        told["size"] = self.spool.size
        return {**told, **self._put_back()}

    def _ended(self, left: list[int], own_peak_kibibytes: int) -> dict[str, Any]:
        if self.not_begun and self.why is None:
            return self._never_began(self.not_begun, left)
        # Nobody can know it of a leader that is not reaped; a signal is a negative code.
        code = os.waitstatus_to_exitcode(signal.SIGKILL if self.status is None else self.status)
        told: dict[str, Any] = {
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "why": self.why,
            "time_started": self.time_started,
            "time_ended": self.time_ended or time.time(),
            "cpu_seconds": round(self.cpu_seconds, 6),
        }
        largest = self.peak_kibibytes * 1024 if self.peak_kibibytes > own_peak_kibibytes else 0
        if peak_bytes := max(largest, self.peak_bytes):
            told["peak_memory_bytes"] = peak_bytes
        if reasons := [each for each in (self.reason, self.spool.trouble) if each]:
            told["reason"] = "; ".join(reasons)
            told["output_lost"] = self.spool.trouble
        if left:
            told["left"] = left
        if self.spent:
            told["spent"] = self.spent
        return told

    def _never_began(self, why: NotStarted, left: list[int]) -> dict[str, Any]:
        told = never_began(why, self.time_ended or time.time())
        return {**told, "left": left} if left else told

    def _in_group(self, pid: int) -> bool:
        return not self.leader_ended and tree.birth_of(pid).group == self.pid


def never_began(why: NotStarted, time_ended: float) -> dict[str, Any]:
    """What the agent is told of one that no program was started for."""
    return {
        "code": why.exit_code,
        "signal": None,
        "why": None if why.exit_code else "not_started",
        "time_ended": time_ended,
        "cpu_seconds": 0.0,
        "reason": why.reason,
    }


class OwnPeak:
    """The most memory that this process has held; read now and then, as reading it costs."""

    def __init__(self) -> None:
        self._kibibytes = 0
        self._read_at = 0.0

    def kibibytes(self) -> int:
        """Resident memory at its highest so far, and a little more for what was since."""
        if time.monotonic() - self._read_at > _OWN_PEAK_SECONDS:
            self._read_at = time.monotonic()
            status = Path("/proc/self/status").read_text()
            self._kibibytes = int(status.partition("\nVmHWM:")[2].split()[0])
        return self._kibibytes + _OWN_PEAK_SLACK_KIBIBYTES


def ended_child() -> int | None:
    """A child that has ended and still keeps its number."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None


def kill_trees(roots: list[int]) -> None:
    """SIGKILL to these processes and all below them, found again while they are held still.

    What forks faster than it is found is left to the next call: the launcher has more to do.
    """
    seen: set[int] = set()
    for _ in range(_HOLDS_MAX):
        new = [pid for pid in tree.descendants(roots) if pid not in seen]
        if not new:
            break
        send(new, signal.SIGSTOP)
        seen.update(new)
    send(seen, signal.SIGKILL)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """One signal to each of these; those that are gone are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def send_to_group(group: int, number: signal.Signals) -> None:
    """One signal to a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
