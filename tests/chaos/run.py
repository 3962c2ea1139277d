"""One run: the stage is set, load and faults go on for their time, all heals, and is judged.

Called by `tests.chaos.__main__`. The report is made of what it returns.
"""

import contextlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos import plan
from tests.chaos.faults import Fault
from tests.chaos.graphs import Kind
from tests.chaos.ground import Loopback
from tests.chaos.judge import Case, Violation, judge
from tests.chaos.load import Client
from tests.chaos.recovery import Recovery
from tests.chaos.stage import Stage
from tests.harness import Processes, eventually
from tests.harness.history import History
from tests.harness.oplog import Oplog
from tests.harness.processes import MARK

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    seed: int
    seconds: float
    faults: list[Fault]
    gap_seconds: float = 4.0
    workers: int = 6
    clients: int = 3
    task_seconds_max: float = 3.0
    drain_seconds: float = 180.0


@dataclass
class Result:
    """What came of it."""

    options: Options
    struck: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)  # strokes that could not be made
    violations: list[Violation] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    fresh_seconds: list[tuple[str, float]] = field(default_factory=list)
    held_seconds: list[tuple[str, float]] = field(default_factory=list)
    spoilt: Counter[str] = field(default_factory=Counter)
    answers: dict[str, int] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)  # seconds to an answer, or to its loss
    seconds: float = 0.0


Say = Callable[[str], None]


def run(
    options: Options,
    directory: Path,
    make_ground: Callable[[Processes], Loopback],
    say: Say,
) -> Result:
    """The run, from nothing to the verdict. What it wrote stays in the directory."""
    begun = time.monotonic()
    directory.mkdir(parents=True)
    (directory / "processes").mkdir()
    processes = Processes(directory / "processes")
    result = Result(options)
    try:
        stage = Stage(make_ground(processes), processes, directory, options.workers)
        stage.start()
        say(f"ready after {time.monotonic() - begun:.0f} s")
        _Run(options, stage, result, say).go()
    finally:
        result.seconds = time.monotonic() - begun
        try:
            processes.end()
        except AssertionError as error:
            result.violations.append(Violation("leftovers", "processes", str(error)))
    return result


class _Run:
    def __init__(self, options: Options, stage: Stage, result: Result, say: Say) -> None:
        self._options = options
        self._stage = stage
        self._result = result
        self._say = say
        self._history = History(stage.directory / "history")
        self._canary = f"canary-{secrets.token_hex(16)}"
        env = {MARK: stage.processes.mark, "CHAOS_CANARY": self._canary}
        self._kind = Kind(stage.directory / "tasks", env, options.task_seconds_max)
        self._kind.prepare()
        self._oplog = Oplog(stage.members.uri)
        self._stop = threading.Event()
        self._done = threading.Event()
        self._recovery = Recovery(self._done, stage.provider, stage.members.uri)
        self._heals: list[tuple[float, Callable[[], None]]] = []

    def _note(self, line: str) -> None:
        self._say(f"{time.monotonic() - self._begun:7.1f} s  {line}")

    def go(self) -> None:
        """Load and strokes, the calm after it, and the verdict."""
        with self._load():
            self._strike_all()
            while self._heals:
                self._turn(self._heals[0][0])
        self._note("the load is over; all may end now")
        self._drain()
        self._note("all has ended; the verdict follows")
        self._recovery.join(self._options.drain_seconds)
        self._done.set()
        stage, result = self._stage, self._result
        result.fresh_seconds = self._recovery.fresh_seconds
        result.held_seconds = self._recovery.held_seconds
        case = Case(stage, self._history, self._oplog, self._kind, self._canary)
        violations, counts = judge(case)
        result.violations += violations
        result.counts.update(counts)
        seen = stage.wire.seen
        result.spoilt = seen.spoilt
        total: Counter[str] = Counter()
        for (_, status), count in seen.answers.items():
            total[str(status)] += count
        result.slowest = {verb: round(one, 1) for verb, one in sorted(seen.slowest.items())}
        result.answers = dict(sorted(total.items()))

    @contextlib.contextmanager
    def _load(self) -> Iterator[None]:
        clients = [
            Client(
                number, self._options.seed, self._stage.provider, self._kind, self._history,
                self._stop,
            )
            for number in range(self._options.clients)
        ]  # fmt: skip
        for client in clients:
            client.start()
        try:
            yield
        finally:
            self._stop.set()
            for client in clients:
                client.join(90)

    def _strike_all(self) -> None:
        options = self._options
        strokes = plan.make(options.faults, options.seed, options.seconds, options.gap_seconds)
        self._begun = time.monotonic()
        late = 0.0  # a stroke that took its time moves all that follow, so that they keep apart
        for stroke in strokes:
            self._turn(self._begun + stroke.at + late)
            late = max(late, time.monotonic() - self._begun - stroke.at)
            self._strike(stroke)
        self._turn(self._begun + options.seconds + late)

    def _strike(self, stroke: plan.Stroke) -> None:
        at = time.monotonic() - self._begun
        before = self._recovery.held()
        try:
            heal = stroke.fault.strike(self._stage, Random(stroke.seed))
        except Exception as error:  # a victim that has gone meanwhile, say: the run goes on
            self._result.failed.append(f"{stroke.fault.name} at {at:.1f} s: {error!r}")
            self._say(self._result.failed[-1])
            return
        self._note(stroke.fault.name)
        self._history.add("stroke", "ok", name=stroke.fault.name)
        self._result.struck[stroke.fault.name] += 1

        def over() -> None:
            if heal:
                heal()
            name, seed = stroke.fault.name, stroke.seed
            self._recovery.measure(name, before, self._kind, seed, self._history)

        self._heals.append((time.monotonic() + stroke.seconds, over))
        self._heals.sort(key=lambda one: one[0])

    def _turn(self, until: float) -> None:
        """Start again what died, and heal what is due, until that time."""
        while True:
            while self._heals and self._heals[0][0] <= time.monotonic():
                self._heals.pop(0)[1]()
            self._stage.revive()
            left = until - time.monotonic()
            if left <= 0:
                return
            threading.Event().wait(min(_TICK_SECONDS, left))

    def _drain(self) -> None:
        """Until every task has ended; what never ends, the judge will find."""

        def ended() -> bool:
            self._stage.revive()
            open_states = {"state": {"$nin": ["terminated", "cancelled"]}}
            with self._stage.members_client() as client:
                tasks = client["banyan"]["tasks"]
                return not tasks.find_one(open_states) and not tasks.find_one({"unsettled": True})

        def quiet() -> bool:
            try:
                return ended()
            except Exception:  # the database is on its way up
                return False

        try:
            eventually(quiet, self._options.drain_seconds, every_seconds=0.5)
        except AssertionError:
            message = f"not all tasks have ended {self._options.drain_seconds:.0f} s after the load"
            self._result.violations.append(Violation("drain", "", message))
