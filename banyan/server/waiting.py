"""Who waits for what in this server process, and whom a change wakes.

The WSGI application calls `Hub.signal` from its threads, the watcher calls it for what
happened anywhere, and the ASGI layer subscribes and waits on the event loop. Nothing here
knows a request or the database: a topic is a string.

No wake-up is lost: the asker takes `Hub.now()` before it looks, and subscribing with
that moment counts whatever was signalled since.

A topic of `TURN_TOPICS` wakes one waiter for each signal: a thousand idle workers must
not all ask for one task. Who is woken has a *turn*. If it comes back with nothing (the
task was not for it), or goes away, the turn goes on to the next who has not asked since
the signal; until one takes it, or everybody has asked, or the turn's subject is settled
(another server process gave the task away).

Nobody can make others wait by waiting. Of one worker one claim is held: a newer one ends the one
before. A turn goes to another account first, where there is one that has refused it less often,
and to none that would look for the very same: where one found nothing, its like finds nothing.
"""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType

from banyan.server.memory import Memory
from banyan.server.turns import Claimant, Line, Refused, Turn

TURN_TOPICS = frozenset({"available"})
LATER_SECONDS = 0.03  # a short task has ended by then, and its start and end are told as one
TURN_SECONDS = 0.5  # so long a turn is one waiter's alone
SETTLE_SECONDS = 0.25  # by then the watcher has seen a claim that was answered
_VERSIONS_MAX = 1000  # who waits for a new task does so at once
_ECHO_MILLISECONDS = 2000  # so long after it was said here, the watcher may say it again


class Hub:
    """The waiters of one process. Threads may call `signal`, `settle`, `signal_everybody`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = 0
        self._signalled = Memory()  # topic -> when it was last signalled
        self._versions: dict[str, str] = {}  # topic -> the etag with which it was first signalled
        self._announced = Memory()  # subject of a turn -> milliseconds when this process said it
        self._settled = Memory()  # subject of a turn -> when it was no longer to be had
        self._all_signalled = 0
        # What the loop has not seen yet:
        self._arrived: set[str] = set()
        self._arrived_turns: list[Turn] = []
        self._everybody = False
        self._called = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: dict[str, dict[Waiter, None]] = {}
        self._line: Line[Waiter] = Line()
        self._of_worker: dict[tuple[str, str], Waiter] = {}  # by account and worker
        self.ended = False
        self.waiting = 0
        self.watched = False  # the watcher is there and signals every subject
        self.wanted = threading.Event()  # somebody waits: the watcher looks at it

    def now(self) -> int:
        """The present moment, to be handed to `subscribe` after having looked."""
        return self._clock

    def signal(
        self,
        topic: str,
        *,
        observed: bool = False,
        echo: bool = False,
        urgent: bool = True,
        version: str = "",
    ) -> None:
        """Something about this topic has changed. Cheap, and safe from any thread.

        topic:    of a turn it may name its subject, `available:<task id>`; a turn without
                  one is left to the watcher while there is one.
        observed: said by the watcher.
        echo:     of what this process has written, and has said already, or will.
        urgent:   else who waits for it hears of it a moment later, with what comes by then.
        version:  the etag of a new task; `is_new` knows it until the task is signalled again.
        """
        kind, _, subject = topic.partition(":")
        with self._lock:
            self._clock += 1
            if kind not in TURN_TOPICS:
                self._note_version(topic, version)
                self._signalled[topic] = self._clock
                if not urgent:
                    self._arrives_later(topic)
                    return
                self._arrived.add(topic)
            elif echo and _milliseconds() - self._announced.pop(subject) < _ECHO_MILLISECONDS:
                return
            else:
                self._signalled[kind] = self._clock
                if subject and not observed:
                    self._announced[subject] = _milliseconds()
                if subject or not self.watched:
                    self._arrived_turns.append(Turn(kind, subject, self._clock, Refused()))
            self._call_loop()

    def is_new(self, topic: str, version: str) -> bool:
        """Whether nothing has changed since that version was made, as far as can be heard of."""
        with self._lock:
            return self.watched and self._versions.get(topic) == version

    def settle(self, subject: str) -> None:
        """Nothing more is to be had there: no turn about it needs to go on."""
        with self._lock:
            self._clock += 1
            self._settled[subject] = self._clock
            self._announced.pop(subject)  # when it comes back, that is no echo

    def signal_everybody(self) -> None:
        """Anything may have changed, e.g. while nobody watched the database."""
        with self._lock:
            self._clock += 1
            self._all_signalled = self._clock
            self._everybody = True
            self._call_loop()

    def subscribe(
        self, topics: Sequence[str], asked: int, claimant: Claimant | None = None
    ) -> "Waiter":
        """A waiter for these topics, who last looked at the moment `asked`; use it in `with`."""
        return Waiter(self, topics, asked, claimant)

    async def wait(self, topics: Sequence[str], timeout_seconds: float) -> bool:
        """Whether one of the topics is signalled within the time."""
        with self.subscribe(topics, self.now()) as waiter:
            return await waiter.wait(timeout_seconds)

    def end(self) -> None:
        """Let nobody wait any longer: the process is about to end. On the loop only."""
        self.ended = True
        for waiters in list(self._waiters.values()):
            for waiter in list(waiters):
                waiter.cancel()

    def _note_version(self, topic: str, version: str) -> None:
        """Only of what was never signalled: else who was slow to say it might be told of by now."""
        self._versions.pop(topic, None)
        if version and not self._signalled[topic]:
            self._versions[topic] = version
            if len(self._versions) > _VERSIONS_MAX:
                del self._versions[next(iter(self._versions))]

    def _arrives_later(self, topic: str) -> None:
        if topic in self._waiters and self._loop is not None:
            arrives = partial(self._arrives, topic, self._clock)
            self._loop.call_soon_threadsafe(self._loop.call_later, LATER_SECONDS, arrives)

    def _arrives(self, topic: str, moment: float = math.inf) -> None:
        """Wake who waits for the topic, and has not looked since that moment."""
        for waiter in self._waiters.get(topic, ()):
            if waiter.asked < moment:
                waiter.wake()

    def _call_loop(self) -> None:
        """Have the loop look at what arrived; once for all that arrives until it does."""
        if not self._waiters or self._loop is None:
            self._arrived.clear()
            self._arrived_turns.clear()
            self._everybody = False
        elif not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            topics, self._arrived = self._arrived, set()
            turns, self._arrived_turns = self._arrived_turns, []
            everybody, self._everybody, self._called = self._everybody, False, False
            if everybody:
                topics = set(self._waiters)
        for topic in topics:
            self._arrives(topic)
        for topic in TURN_TOPICS & self._waiters.keys():
            self._give([turn for turn in turns if turn.topic == topic])

    def _give(self, turns: Sequence[Turn]) -> None:
        """Wake the first in the queue who have not looked since, and are not about to.

        Where nobody is left to be woken, a turn ends: all will look later than its moment.
        """
        open_turns = [turn for turn in turns if self._settled[turn.subject] < turn.moment]
        if open_turns:
            latest = open_turns[-1].moment
            free = (one for one in self._line if not one.woken and one.asked < latest)
            given = list(zip(open_turns, free, strict=False))
            for turn, waiter in given:
                waiter.wake(turn)
                self._line.put_back(waiter)

    def _hand_on(self, turn: Turn | None) -> None:
        if turn and self._settled[turn.subject] < turn.moment:
            following = self._line.next(turn)
            if following:
                following.wake(turn)

    def _enter(self, waiter: "Waiter") -> bool:
        """Queue a waiter; whether something was signalled since it asked."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
            for topic in waiter.topics:
                self._waiters.setdefault(topic, {})[waiter] = None
            if not TURN_TOPICS.isdisjoint(waiter.topics):
                self._line.add(waiter)
            self._replace(waiter)
            self.waiting += 1
            self.wanted.set()
            last = max(self._signalled[topic] for topic in waiter.topics)
            return waiter.asked < max(last, self._all_signalled, self._signalled.forgotten)

    def _replace(self, waiter: "Waiter") -> None:
        """A worker's newer claim ends the one that was held for it before."""
        if waiter.claimant:
            place = waiter.claimant[:2]
            before = self._of_worker.get(place)
            self._of_worker[place] = waiter
            if before:
                before.cancel()

    def _requeue(self, waiter: "Waiter") -> None:
        """Whoever asked last stands at the end."""
        for topic in waiter.topics:
            queue = self._waiters[topic]
            del queue[waiter]
            queue[waiter] = None
        if not TURN_TOPICS.isdisjoint(waiter.topics):
            self._line.remove(waiter)
            self._line.add(waiter)

    def _leave(self, waiter: "Waiter") -> None:
        with self._lock:
            for topic in waiter.topics:
                queue = self._waiters[topic]
                del queue[waiter]
                if not queue:
                    del self._waiters[topic]
            if not TURN_TOPICS.isdisjoint(waiter.topics):
                self._line.remove(waiter)
            if waiter.claimant and self._of_worker.get(waiter.claimant[:2]) is waiter:
                del self._of_worker[waiter.claimant[:2]]
            self.waiting -= 1


class Waiter:
    """One who waits; lives on the event loop. `woken` means: it will look again."""

    def __init__(
        self, hub: Hub, topics: Sequence[str], asked: int, claimant: Claimant | None = None
    ) -> None:
        self._hub = hub
        self.claimant = claimant
        self.topics = tuple(dict.fromkeys(topics))
        self.asked = asked
        self.woken = False
        self.cancelled = False
        self._turn: Turn | None = None  # given, and not begun
        self._turn_begun: Turn | None = None
        self._future: asyncio.Future[None] | None = None

    def __enter__(self) -> "Waiter":
        if self._hub._enter(self):
            self.wake()
        if self._hub.ended:
            self.cancel()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hub._leave(self)
        turns = (self._turn, self._turn_begun)
        self._turn = self._turn_begun = None
        for turn in turns:
            self._hub._hand_on(turn)

    def wake(self, turn: Turn | None = None) -> None:
        """Let it look again; `turn`: on behalf of all who wait for that topic."""
        self.woken = True
        if turn and not self._turn:
            self._turn = turn
            asyncio.get_running_loop().call_later(TURN_SECONDS, self._be_late, turn)
        self._release()

    def _be_late(self, turn: Turn) -> None:
        """Whatever keeps it from looking (its account may be busy), others look meanwhile."""
        if self._turn is turn or self._turn_begun is turn:
            turn.refused.was_late(self.claimant)
            self._hub._hand_on(turn)

    def cancel(self) -> None:
        """Let it wait no longer: its caller has gone, or the process ends."""
        self.cancelled = True
        self._release()

    async def wait(self, seconds: float) -> bool:
        """Whether there is a reason to look again; False when time is up or it was cancelled."""
        if not self.woken and not self.cancelled and seconds > 0:
            loop = asyncio.get_running_loop()
            self._future = loop.create_future()
            timer = loop.call_later(seconds, self._release)
            try:
                await self._future
            finally:
                timer.cancel()
                self._future = None
        return self.woken and not self.cancelled

    def look(self) -> None:
        """It looks again now: what is signalled from here on is a new reason."""
        self.asked = self._hub.now()
        self.woken = False
        self._turn, self._turn_begun = None, self._turn
        self._hub._requeue(self)

    def found_nothing(self) -> None:
        """It looked in vain: a turn goes on to the next."""
        turn, self._turn_begun = self._turn_begun, None
        if turn:
            turn.refused.add(self.claimant)
        self._hub._hand_on(turn)

    def found(self) -> None:
        """It got what it waited for: its turn is used up, if that was its subject."""
        turn, self._turn_begun = self._turn_begun, None
        if turn and turn.subject and self._hub.watched:
            # It may have taken another task than the one of its turn. Which one, the
            # watcher tells; as long as the subject is to be had, somebody must look.
            loop = asyncio.get_running_loop()
            loop.call_later(SETTLE_SECONDS, self._hub._hand_on, turn)

    def _release(self) -> None:
        if self._future and not self._future.done():
            self._future.set_result(None)


def _milliseconds() -> int:
    return time.monotonic_ns() // 1_000_000
