"""The long-lived process beside the agent: it starts tasks, and ends them.

Started by `launching.py`, with its listening socket and the state directory as arguments. It
outlives its agent: tasks go on when the agent is killed, and the next agent takes them
over. It ends them by itself when their time is up, and when nobody renews the leases. One
thread, standard library only, no network: so it stays small, and starting a task cheap. Where the
kernel holds up that thread for a task, another goes on with the loop (see `pipes.py`); one more has
the kernel make room for a task (see `room.py`).
It must never forget a process that it has started.

What it is told: start, stop, withdraw, trust, shipped, forget, repair, goodbye. What it tells:
hello (to each new agent: all attempts that it holds), started, withdrawn, output, sample, ended,
cleared, left, trusted.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from banyan.worker import wire
from banyan.worker.cells import Cells
from banyan.worker.pipes import Replaced, Step
from banyan.worker.supervision import Supervision
from banyan.worker.timers import Timers, now

SOCKET = "launcher.socket"
OUTPUT = "output"

_SLEEP_SECONDS_MAX = 5.0  # epoll's clock stands still while a machine sleeps, leases do not
_LEASE_GRACE = 0.7  # of the time between the last trusted moment and the end of the lease
_NICE = -10
_PR_SET_CHILD_SUBREAPER = 36
_SIGNAL_SET_LONGS = 32  # at least what the kernel and any C library have
_LOOK_AGAIN_SECONDS = 1.0
_LEASE = "lease"
_TELL = "tell"
_TELL_SECONDS = 0.016  # so long what is told gathers while others wait to start


class Launcher:
    """The loop, and the conversation with the agent."""

    def __init__(self, listener: socket.socket, state_directory: Path) -> None:
        self._listener = listener
        self._socket = state_directory / SOCKET
        self._epoll = select.epoll()
        self._timers = Timers()
        self._cells = Cells(state_directory)
        self._attempts = Supervision(
            state_directory / OUTPUT, self._cells, self._epoll, self._timers, self._tell
        )
        self._agent: wire.Line | None = None
        self._agent_is_slow = False
        self._starts: dict[str, wire.Message] = {}  # not told yet
        self._heard: deque[wire.Message] = deque()  # and not obeyed yet
        self._goodbye = False
        self._lease_end: float | None = None
        self._child_ended = _wake_on_child()
        self._epoll.register(self._child_ended, select.EPOLLIN)
        listener.setblocking(False)
        self._epoll.register(listener, select.EPOLLIN)

    def serve(self) -> None:
        """Works until there is nothing to do and nobody who might bring more.

        Returns only then; in another thread the process ends with it.
        """
        self._attempts.pipes.watch(self._replace)
        self._accept()  # the agent has connected before it started this process
        try:
            self._work()
        except Replaced:
            threading.Event().wait()  # the process ends with the thread that goes on

    def _work(self) -> None:
        while not self._finished():
            self._turn()
        for attempt in list(self._attempts.ended):
            self._attempts.forget(attempt)
        self._cells.end()
        # The kernel may keep the process for as long as somebody holds a pipe that it has open.
        # Nobody is to wait for that.
        self._listener.close()
        with contextlib.suppress(OSError):
            self._socket.unlink()
        self._drop_agent()

    def _replace(self, step: Step) -> None:
        threading.Thread(target=self._go_on, args=(step,), daemon=True).start()

    def _go_on(self, step: Step) -> None:
        """In a new thread: is the loop, where a step of the last one does not come back."""
        try:
            _go_first()
            self._attempts.go_on_without(step)
            self._obey_heard()
            self._rest_of_turn(child_ended=True)
            self._work()
        except Replaced:
            self._outlast_starts()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        else:
            os._exit(0)

    def _outlast_starts(self) -> None:
        """What this thread has forked dies with it until its program is there: see `forking`."""
        starting = self._attempts.starting()
        while starting & self._attempts.starting():
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _finished(self) -> bool:
        if self._attempts.running:
            return False
        if self._agent:
            return self._goodbye and not self._agent.unsent
        if self._goodbye or not self._attempts.ended:
            return True
        return self._lease_end is None or now() >= self._lease_end

    def _turn(self) -> None:
        child_ended = False
        readable = []  # read last: there may be a number that hold up the loop, one after the other
        for file, _ in self._epoll.poll(self._sleep_seconds()):
            if file in self._attempts.pipes:
                readable.append(file)
            elif file == self._child_ended:
                with contextlib.suppress(BlockingIOError):
                    os.read(file, 4096)
                child_ended = True
            elif file == self._listener.fileno():
                self._accept()
            elif self._agent and file == self._agent.fileno():
                self._hear(self._agent)
        for pipe in readable:
            if pipe in self._attempts.pipes:  # still
                self._attempts.read(pipe)
        self._rest_of_turn(child_ended)

    def _rest_of_turn(self, child_ended: bool) -> None:
        if child_ended:
            self._attempts.reap()
        for key in self._timers.due(now()):
            self._due(key)
        self._attempts.settle_pipes()
        self._attempts.go_home()
        if self._attempts.waiting and self._agent:  # there is no hurry: more follows by itself
            self._timers.set_earlier(_TELL, now() + _TELL_SECONDS)
        else:
            self._flush_agent()

    def _due(self, key: Any) -> None:
        if key == _LEASE:
            self._lease_over()
        elif key == _TELL:
            self._flush_agent()
        else:
            self._attempts.due(key)

    def _sleep_seconds(self) -> float | None:
        first = self._timers.next()
        if self._attempts.ended and not self._agent and self._lease_end is not None:
            first = min(first or self._lease_end, self._lease_end)
        return None if first is None else min(max(first - now(), 0), _SLEEP_SECONDS_MAX)

    def _lease_over(self) -> None:
        """Nobody has renewed the leases: end all, so early that it is done when they end."""
        for waiting in self._attempts.waiting:
            self._attempts.withdraw(waiting)  # before what it waits for ends
        grace_seconds = max((self._lease_end or 0) - now(), 0) * _LEASE_GRACE
        for attempt in list(self._attempts.running):
            self._attempts.stop(attempt, "lease", grace_seconds)

    # --- the agent -------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            end, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        self._drop_agent()  # frozen or gone: the directory's lock lets in one at a time
        self._agent = wire.Line(end)
        self._goodbye = False
        self._epoll.register(end, select.EPOLLIN)
        self._tell({"is": "hello", "pid": os.getpid(), **self._attempts.held()})
        self._flush_agent()

    def _drop_agent(self) -> None:
        if self._agent:
            self._epoll.unregister(self._agent)
            self._agent.close()
        self._agent = None
        self._starts.clear()
        self._agent_is_slow = False

    def _tell(self, message: wire.Message) -> None:
        """Keeps it for the next flush. Of what has ended by then no start is told."""
        if message["is"] == "started":
            self._starts[message["attempt"]] = message
            return
        if message["is"] == "ended":
            self._starts.pop(message["attempt"], None)
        if self._agent:
            self._agent.say(message)

    def _flush_agent(self) -> None:
        if not self._agent:
            return
        for message in self._starts.values():
            self._agent.say(message)
        self._starts.clear()
        try:
            self._agent.flush()
        except wire.Gone:
            self._drop_agent()
            return
        if self._agent.unsent != self._agent_is_slow:
            self._agent_is_slow = self._agent.unsent
            events = select.EPOLLIN | (select.EPOLLOUT if self._agent_is_slow else 0)
            self._epoll.modify(self._agent, events)

    def _hear(self, agent: wire.Line) -> None:
        try:
            messages = agent.hear()
        except wire.Gone:
            self._drop_agent()
            return
        self._heard += messages
        self._obey_heard()

    def _obey_heard(self) -> None:
        while self._heard:
            self._obey(self._heard.popleft())
            self._attempts.settle_pipes()

    def _obey(self, message: wire.Message) -> None:
        match message["do"]:
            case "start":
                self._attempts.start(message)
            case "stop":
                self._attempts.stop(message["attempt"], message["why"], message["grace_seconds"])
            case "withdraw":
                _for_each(self._attempts.withdraw, message["attempts"])
            case "forget":
                _for_each(self._attempts.forget, message["attempts"])
            case "shipped":
                self._attempts.shipped(message["attempt"], message["position"], message["offset"])
            case "trust":
                self._lease_end = message["lease_end"]
                self._timers.set(_LEASE, message["until"])
                self._tell({"is": "trusted", "until": message["until"]})
            case "repair":
                self._repair()
            case "goodbye":
                self._goodbye = True

    def _repair(self) -> None:
        """Somebody has emptied the state directory: the next agent is to find us, and our cells."""
        with contextlib.suppress(OSError):  # the agent asks again
            self._cells.note()
            listener = wire.listen(self._socket)
            listener.setblocking(False)
            self._epoll.register(listener, select.EPOLLIN)
            self._epoll.unregister(self._listener)
            self._listener.close()
            self._listener = listener


def _for_each(call: Callable[[str], None], attempts: list[str]) -> None:
    for attempt in attempts:
        call(attempt)


def _wake_on_child() -> int:
    """A file that becomes readable when a child has ended.

    Whichever thread waits for it then: a signal with a handler may be given to a thread that the
    kernel holds up, and nobody else would hear of it.
    What a signal to the worker means is the agent's to decide; one to the launcher, sent
    to everything in a unit or on a machine that goes down, means nothing.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # for all threads that follow, too
    wanted = (ctypes.c_ulong * _SIGNAL_SET_LONGS)(1 << (signal.SIGCHLD - 1))
    libc = ctypes.CDLL(None, use_errno=True)
    file = libc.signalfd(-1, wanted, os.O_CLOEXEC | os.O_NONBLOCK)
    if file < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return int(file)


def _become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _go_first() -> None:
    """Lets tasks in crowds, however many, leave the launcher its part of the processor.

    What it starts is as nice as anybody. Only root may do so, and who was told how nice to be
    stays as it is.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) == 0:
        with contextlib.suppress(OSError):
            policy = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
            # Where the kernel shares the processor among sessions, only this counts between them.
            Path("/proc/self/autogroup").write_text(str(_NICE))


def main() -> None:
    """Serves on the inherited listening socket until there is nothing more to do."""
    state_directory = Path(sys.argv[2])
    os.set_inheritable(int(sys.argv[1]), False)  # a task that held it would seem to be a launcher
    _become_subreaper()
    _go_first()
    os.chdir("/")
    Launcher(socket.socket(fileno=int(sys.argv[1])), state_directory).serve()
