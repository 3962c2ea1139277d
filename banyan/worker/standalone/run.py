"""A file of tasks on this machine, with no server: the loop, in the place of the agent.

`main` is called by the command line. The same launcher starts and ends the tasks, the same
ledger counts what they hold; here is only what a server would decide otherwise, and that is the
plan's. It must never leave a process of a task behind.
"""

import hashlib
import logging
import os
import select
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from banyan import logs, ownership, signals
from banyan.config import knobs
from banyan.domain.resources import (
    Capacity,
    Grant,
    ResourceError,
    capacity_from,
    normalise_capacity,
)
from banyan.domain.states import State
from banyan.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_TASK_FAILED, BanyanError
from banyan.worker import inventory, mailbox, wire
from banyan.worker.environment import for_launcher
from banyan.worker.holding import Holding
from banyan.worker.ledger import Ledger
from banyan.worker.link import Link
from banyan.worker.options import Options
from banyan.worker.output import Reader
from banyan.worker.politeness import others_beside
from banyan.worker.standalone.journal import Journal
from banyan.worker.standalone.outputs import Output, result_file
from banyan.worker.standalone.plan import Plan, Task, too_large
from banyan.worker.standalone.taskfile import read_tasks
from banyan.worker.standalone.terminal import Terminal
from banyan.worker.state import StateDirectory
from banyan.worker.sweep import sweep
from banyan.worker.timers import Timers, now

STATE = ".banyan"  # in the directory of a run: what its launcher needs

_TRUST_SECONDS = 5.0  # from one word to the launcher to the next
_TRUSTED_SECONDS = 20.0  # so long tasks go on when this process is gone,
_LEASE_SECONDS = 30.0  # and then they have until here to end
_SILENCE_SECONDS_MAX = 10.0
_SHORT_SECONDS = 5.0
_GIVE_UP_SECONDS = 10.0

_log = logging.getLogger("banyan.worker")


class Run:
    """One run; `Holding` tells it what becomes of the attempts."""

    def __init__(
        self, options: Options, plan: Plan, total: Capacity, directory: Path, state: StateDirectory
    ) -> None:
        self._options = options
        self._plan = plan
        self._directory = directory
        self._state = state
        self._box = mailbox.Mailbox()
        self._timers = Timers()
        self._link = Link(state.path)
        others = others_beside(lambda: self._link.pid, total.cores) if options.polite else None
        self._ledger = Ledger(total, inventory.cpus(options), others, options.max_tasks)
        self._journal = Journal(directory)
        self._terminal = Terminal(len(plan.tasks))
        self._holding = Holding(options, state, self._link, self._ledger, self)
        users = self._holding.users
        self._user = users[0] if users and users[0] != os.geteuid() else None  # of the tasks
        digest = hashlib.sha256(str(state.path).encode()).hexdigest()
        self._holding.worker = f"standalone-{digest[:12]}"
        self._attempts: dict[str, tuple[Task, Output]] = {}
        self._interrupted = False
        self._over = False

    def run(self) -> int:
        """Until all has ended, or a signal says to stop; the exit code."""
        signals.heed(lambda *_: self._box.put(mailbox.SignalCame()))
        self._begin()
        while not self._over:
            self._turn()
        self._link.goodbye()
        self._journal.close()
        counts = self._plan.counts()
        self._terminal.say(self._terminal.summary(counts))
        if self._interrupted:
            return EXIT_INTERRUPTED
        bad = counts.keys() & {"failure", "timeout", "oom", "lost"}
        return EXIT_TASK_FAILED if bad else EXIT_OK

    # --- the loop --------------------------------------------------------------------

    def _begin(self) -> None:
        done = self._journal.succeeded(self._plan.tasks.values())
        if done:
            self._terminal.say(f"{len(done)} have succeeded before")
        self._plan.begin(done)
        self._holding.hear(self._link.open())
        known = self._holding.attempts
        sweep([self._holding.worker], known, users=self._holding.users)
        self._state.forget_outputs(but=set(known))
        for attempt in set(known) - self._attempts.keys():
            self._holding.lose(attempt)  # of a task that has changed since
        self._trust()
        self._follow_up()

    def _turn(self) -> None:
        link = self._link.fileno()
        sending = [link] if self._link.unsent else []
        select.select([self._box.fileno(), link], sending, [], self._sleep_seconds())
        try:
            for message in self._link.hear():
                self._holding.hear(message)
            for _ in self._box.take():
                self._interrupt()
            for key in self._timers.due(now()):
                self._due(key)
            self._follow_up()
            self._link.flush()
        except wire.Gone:
            self._replace_launcher()

    def _sleep_seconds(self) -> float:
        first = self._timers.next()
        waits = [self._plan.seconds_to_wake(), None if first is None else max(first - now(), 0)]
        return min(seconds for seconds in waits if seconds is not None)

    def _due(self, key: object) -> None:
        if key == "give up":
            self._over = True
        elif key == "trust":
            self._link.check(_SILENCE_SECONDS_MAX)
            self._trust()

    def _trust(self) -> None:
        self._link.trust(now() + _TRUSTED_SECONDS, now() + _LEASE_SECONDS)
        self._timers.set("trust", now() + _TRUST_SECONDS)

    def _follow_up(self) -> None:
        """Starts what may start now, and sees whether all is over."""
        released, self._holding.to_release = self._holding.to_release, []
        for attempt in released:
            task, _ = self._attempts.pop(attempt)
            self._plan.given_back(task)
        if self._holding.short:
            self._holding.short = False
            self._timers.set("short", now() + _SHORT_SECONDS)
        if not self._interrupted and "short" not in self._timers:
            self._start()
        self._terminal.draw(self._plan.counts)
        done = self._interrupted or self._plan.over
        self._over = self._over or (done and not self._holding.busy)

    def _start(self) -> None:
        for task, grant in self._plan.choose(self._ledger.free, self._ledger.usable):
            if self._ledger.is_full:
                return
            attempt = f"{task['key']}-{uuid.uuid4().hex}"
            self._plan.claimed(task, attempt, grant)
            file = result_file(self._directory, task["name"])
            result = {"BANYAN_RESULT_FILE": for_launcher(str(file))}
            more = {
                "attempt_id": attempt,
                "granted_resources": grant.to_json(),
                "token": attempt,
                "env": {**(task.get("env") or {}), **result},
            }
            self._holding.start({**task, **more}, now() + _LEASE_SECONDS)

    def _interrupt(self) -> None:
        """The first signal ends what runs in its time, the second at once."""
        seconds = 0.0 if self._interrupted else self._options.shutdown_seconds
        if not self._interrupted:
            self._terminal.say("ending what runs; the next run goes on from here")
        self._interrupted = True
        for attempt in self._holding.running:
            self._holding.stop(attempt, "released", seconds)
        self._timers.set("give up", now() + seconds + _GIVE_UP_SECONDS)

    def _replace_launcher(self) -> None:
        _log.error("the launcher has died: its tasks are ended, and count as lost")
        self._link.close()
        sweep([self._holding.worker], (), self._state.path, self._holding.users)
        self._holding.launcher_died()
        self._holding.hear(self._link.open())
        self._trust()  # the timer may have been taken out, by what has led here

    # --- what becomes of the attempts: see `banyan.worker.hearer` ----------------------

    def follow(self, attempt: str, task: str, token: str, reader: Reader) -> None:
        """It is held now: started by us, or found with the launcher of a run before."""
        named = self._plan.tasks.get(task)
        if named is None or not attempt.startswith(f"{named['key']}-"):
            return
        found = named["state"] == State.AVAILABLE
        if found:
            self._plan.claimed(named, attempt, Grant())
        if named["state"] == State.RUNNING and named["attempt_id"] == attempt:
            first = named["attempt_count"] == 1 and reader.offset == 0
            self._attempts[attempt] = (
                named,
                Output(self._directory, task, reader, first, found=found, user=self._user),
            )

    def output(self, attempt: str) -> None:
        """There is more output."""
        if attempt in self._attempts:
            task, output = self._attempts[attempt]
            output.copy()
            self._holding.shipped(attempt, *output.place)
            self._terminal.progress(task["name"], output.progress)

    def _note(self, task: Task, time: str) -> None:
        try:
            self._journal.add(task, time)
        except OSError as error:  # the next run will do it again
            _log.error("the end of %s is not kept: %s", task["name"], error)
        self._terminal.ended(task)

    def sample(self, attempt: str, sample: Mapping[str, Any]) -> None:
        """Nobody asks what it uses."""

    def ended(self, attempt: str, end: Mapping[str, Any], inline: str | None, size: int) -> None:
        """It has ended."""
        if attempt in self._attempts:
            task, output = self._attempts.pop(attempt)
            output.finish(inline, size)
            task["progress"] = output.progress
            for over in self._plan.ended(task, end):
                self._note(over, str(end["time_terminated"]))
        self._holding.reported([attempt])

    def drop(self, attempt: str) -> None:
        """It does not count."""
        if attempt in self._attempts:
            self._attempts[attempt][1].finish(None, 0)


def _open_state(directory: Path) -> StateDirectory:
    """Of the directory of a run, which is made where it is missing.

    We write there by name: whoever else may put or rename things there, or above, could lead us
    to any file of ours. Errors: BanyanError `usage`, `data_directory_in_use`.
    """
    try:
        ownership.make(directory, 0o755)  # others may read the output, where the umask lets them
        ownership.demand_own(directory, directory.stat())
        return StateDirectory(directory / STATE)
    except OSError as error:
        raise BanyanError("usage", f"{directory} cannot be used: {error}") from None
    except BanyanError as refusal:
        if refusal.word != "usage":
            raise
        message = f"{refusal.message}; --output DIR names another directory"
        raise BanyanError("usage", message) from None


def main(options: Options, file: Path, directory: Path | None) -> int:
    """Runs the tasks of a file to their ends; the exit code.

    directory: for output and the journal; None: FILE.d.
    Errors: BanyanError `usage` (file, resources), `data_directory_in_use`.
    """
    logs.begin("worker", logging.INFO, "%(levelname)s ")
    tasks = read_tasks(file)
    try:
        total = capacity_from(normalise_capacity(inventory.resources(options)))
    except ResourceError as error:
        raise BanyanError("usage", "these resources cannot be given", error.issues) from None
    large = too_large(tasks, total)
    if large:
        names = ", ".join(large[:10])
        raise BanyanError("usage", f"these ask for more than there is here: {names}")
    directory = (directory or file.with_name(f"{file.name}.d")).absolute()
    state = _open_state(directory)
    try:
        plan = Plan(tasks, int(knobs().STARVATION_SECONDS * 1000))
        return Run(options, plan, total, directory, state).run()
    finally:
        state.close()
