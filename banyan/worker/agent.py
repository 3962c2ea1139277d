"""The worker: looks what there is, claims what fits, has it run, reports.

`main(options)` is the whole life of one worker process; the command line calls it. One loop
makes all decisions. Beside it three threads only wait for the server, each with one connection:
beats (held, so that a cancellation is heard at once), claims (held, so that new work is), and the
courier (what must arrive). The launcher starts tasks; the agent itself must never.
"""

import logging
import select
import socket
from collections.abc import Callable
from typing import Any

from banyan import logs, signals
from banyan.addresses import as_host
from banyan.config import knobs
from banyan.domain.resources import ResourceError, capacity_from, normalise_capacity
from banyan.domain.units import counted
from banyan.errors import EXIT_OK, BanyanError
from banyan.worker import answers, identity, inventory, mailbox, wire
from banyan.worker.claims import wish_for
from banyan.worker.connection import Connection
from banyan.worker.courier import Courier, Errand
from banyan.worker.holding import Holding
from banyan.worker.leaving import GIVE_UP, Leaving, Mode
from banyan.worker.ledger import Ledger
from banyan.worker.line import OVERDUE, Line
from banyan.worker.link import Link
from banyan.worker.modes import IDLE, TIME_UP, Limits
from banyan.worker.options import Options
from banyan.worker.politeness import others_beside
from banyan.worker.readiness import Readiness
from banyan.worker.registration import Registration
from banyan.worker.secrets_file import Secrets
from banyan.worker.state import Identity, StateDirectory, open_state
from banyan.worker.sweep import sweep
from banyan.worker.timers import Timers, now
from banyan.worker.tokens import read_token
from banyan.worker.upkeep import LOOK, Upkeep
from banyan.worker.usage import Usage

_SHORT_SECONDS = 1.0  # without a claim after the machine could not start a process
_SILENCE_SECONDS_MIN = 2.0

_log = logging.getLogger("banyan.worker")


class Agent:
    """One worker."""

    def __init__(
        self, options: Options, token: str, state: StateDirectory, resources: dict[str, Any]
    ) -> None:
        self._options = options
        self._token = token
        self._state = state
        self._resources = resources
        self._box = mailbox.Mailbox()
        self._timers = Timers()
        self._link = Link(state.path)
        total = capacity_from(resources)
        others = others_beside(lambda: self._link.pid, total.cores) if options.polite else None
        self._ledger = Ledger(total, inventory.cpus(options), others, options.max_tasks)
        self._courier = Courier(self._connect(), self._box)
        self._holding = Holding(options, state, self._link, self._ledger, self._courier.reports)
        self._line = Line(self._holding, self._ledger, self._timers, self._release)
        self._usage = Usage(lambda: self._link.pid)
        self._registration: Registration | None = None
        self._readiness = Readiness(options.ready_fd)
        self._workers: set[str] = set()  # all that this state directory may have tasks of
        self._leaving = Leaving(
            options.shutdown_seconds, self._holding, self._courier, self._timers, state
        )
        self._limits = Limits(options, self._timers)
        self._upkeep = Upkeep(state, self._link, self._timers)
        self._releases = 0  # under way
        self._drained = False  # by an operator
        self._to_cancel: dict[str, bool] = {}  # attempts, as the server has said last; by force?
        self._trusted_until = 0.0
        self._handlers: dict[type, Callable[[Any], None]] = {
            mailbox.Claimed: self._claimed,
            mailbox.Beaten: self._beaten,
            mailbox.Reported: self._reported,
            mailbox.Shipped: self._shipped,
            mailbox.AttemptLost: lambda event: self._holding.lose(event.attempt),
            mailbox.LeaseLost: self._lease_lost,
            mailbox.Removed: self._removed,
            mailbox.Done: self._done,
            mailbox.SignalCame: lambda _: self._leaving.signalled(self._registration),
        }

    def run(self) -> int:
        """Until the worker is told to end. Errors: BanyanError, why it cannot go on."""
        signals.heed(lambda *_: self._box.put(mailbox.SignalCame()))
        self._courier.start()
        self._begin()
        self._upkeep.look()
        while self._leaving.mode is not Mode.OVER:
            self._turn()
        for attempt in self._holding.running:
            self._holding.stop(attempt, "released", 0)
        self._courier.stop()
        self._link.goodbye()
        if self._leaving.failure:
            raise self._leaving.failure
        return EXIT_OK

    # --- beginning -------------------------------------------------------------------

    def _begin(self) -> None:
        """Takes over what the worker before this one has left, or clears it away."""
        self._holding.hear(self._link.open())
        known = self._holding.attempts
        last = self._state.identity()
        if last:
            self._workers.add(last.worker)
            sweep(self._workers, known, users=self._holding.users)
        self._state.forget_outputs(but=set(known))
        if last and known:  # the server may have moved, or be another one
            self._take_over(last._replace(takeovers=last.takeovers + 1), known)
            return
        for attempt in known:
            self._holding.lose(attempt)
        if last:
            self._courier.send(Errand("removal", "DELETE", f"/workers/{last.worker}?lost=1"))
        self._register()

    def _take_over(self, last: Identity, known: list[str]) -> None:
        """Asks whether the server knows the worker; what it had claimed and not begun goes back.

        The number is kept before it is used, so that no two agents have the same.
        """
        self._keep(last)
        self._leaving.renewed(now() + last.lease_seconds)
        body = {"attempts": known, "takes_over": last.takeovers}
        path = f"/workers/{last.worker}/beat"
        self._courier.send(Errand("recognition", "POST", path, body, answers.worker))

    def _recognised(self, event: mailbox.Done) -> None:
        """Whether the server knows the worker whose attempts are taken over."""
        last = self._state.identity()
        if last and event.answer and event.answer["mode"] in ("active", "draining"):
            _log.info("taking over %s", counted(len(self._holding.attempts), "attempt"))
            self._work_as(last)
            if self._state.forget_drain():  # that ended with the agent; an operator's stays
                self._courier.send(Errand("resumption", "POST", f"/workers/{last.worker}/resume"))
            return
        for attempt in self._holding.attempts:
            self._holding.lose(attempt)
        if self._leaving.active:
            self._register()

    def _register(self) -> None:
        body = {
            "host": self._options.host or as_host(socket.gethostname()),
            "resources": self._resources,
            "queues": list(self._options.queues),
            "labels": dict(self._options.labels),
        }
        which = answers.registered, answers.REFUSALS_OF_A_WORKER
        self._courier.send(Errand("registration", "POST", "/workers", body, *which))

    def _keep(self, identity: Identity) -> None:
        try:
            self._state.keep_identity(identity)
        except OSError as error:
            _log.error("%s: the next worker here will not take the tasks over", error)

    def _work_as(self, identity: Identity) -> None:
        self._workers.add(identity.worker)
        self._leaving.renewed(now() + identity.lease_seconds)
        self._holding.worker = identity.worker
        self._keep(identity)
        self._drained = False
        self._registration = Registration(
            identity.worker,
            identity.lease_seconds,
            self._connect,
            self._box,
            lambda: self._holding.attempts + self._line.attempts,
            lambda: {**self._usage.now(), **self._holding.stuck()},
            self._limits.left_seconds,
        )
        self._readiness.tell()

    def _connect(self) -> Connection:
        options = self._options
        return Connection(options.url, self._token, options.tls_ca, options.socket)

    # --- the loop --------------------------------------------------------------------

    def _turn(self) -> None:
        link = self._link.fileno()
        sending = [link] if self._link.unsent else []
        select.select([self._box.fileno(), link], sending, [], self._sleep_seconds())
        try:
            for message in self._link.hear():
                self._holding.hear(message)
                if message["is"] == "ended":
                    self._line.ended()
                self._upkeep.hear(message)
            for event in self._box.take():
                self._handlers[type(event)](event)
            for key in self._timers.due(now()):
                self._due(key)
            self._follow_up()
            self._link.flush()
        except wire.Gone:
            self._replace_launcher()

    def _sleep_seconds(self) -> float | None:
        first = self._timers.next()
        return None if first is None else max(first - now(), 0)

    def _due(self, key: object) -> None:
        duties: dict[object, Callable[[], None]] = {
            GIVE_UP: self._leaving.give_up,
            TIME_UP: lambda: self._leaving.time_is_up(self._registration),
            IDLE: lambda: self._leaving.idle(self._registration),
            OVERDUE: self._line.overdue,
            "launcher": self._look_after_launcher,
            LOOK: self._upkeep.look,
        }
        duties.get(key, lambda: None)()

    def _follow_up(self) -> None:
        """What follows from all that has happened in this turn."""
        holding = self._holding
        for attempt, force in self._to_cancel.items():  # it may have come here since that was said
            self._line.cancel(attempt)
            holding.stop(attempt, "cancelled", 0 if force else None)
        self._line.go_on(self._leaving.active, self._trusted_until)
        self._link.flush()  # at once: the threads that are woken below take their time
        tokens, holding.to_release = holding.to_release, []
        self._release(tokens, "released by its worker")
        if holding.short:
            holding.short = False
            self._timers.set("claims", now() + _SHORT_SECONDS)
        if self._registration:
            wish = wish_for(self._ledger.free, self._line.wanted()) if self._may_claim() else None
            again = self._registration.want(wish)
            if again is not None:
                self._timers.set("wish", now() + again)
        self._courier.be_patient(self._line.busy)
        if not self._leaving.active:
            self._courier.leave()
        self._limits.follow_up(holding.busy or self._line.busy)
        self._leaving.follow_up(self._registration, self._releases)

    def _release(self, tokens: list[str], reason: str) -> None:
        if tokens:
            body = {"tokens": tokens, "reason": reason}
            self._courier.send(Errand("release", "POST", "/tasks/release", body))
            self._releases += 1

    def _may_claim(self) -> bool:
        return self._leaving.active and not self._drained and "claims" not in self._timers

    # --- what the server says --------------------------------------------------------

    def _claimed(self, event: mailbox.Claimed) -> None:
        registration = self._registration
        if not registration or event.worker != registration.worker:
            return  # with the lease of that registration, its claims were lost too
        registration.heard()
        for task in event.items:
            self._trusted_until = max(event.trusted_until, self._trusted_until)
            self._line.add(task)
        self._holding.refuse(event.unusable)

    def _beaten(self, event: mailbox.Beaten) -> None:
        if not self._registration or event.worker != self._registration.worker:
            return
        self._registration.renewed(event.answer["lease_seconds"])
        self._trusted_until = event.trusted_until
        self._link.trust(event.trusted_until, event.lease_end)
        self._leaving.renewed(event.lease_end)
        self._timers.set_earlier("launcher", now() + self._silence_seconds())
        self._drained = event.answer["mode"] != "active"
        self._to_cancel = {
            each["attempt"]: each.get("force", False) for each in event.answer["cancel"]
        }
        self._line.hand_over(event.answer["wanted"]["attempts"])
        for attempt in event.answer["lost"]:
            self._line.lose(attempt)
            self._holding.lose(attempt)

    def _reported(self, event: mailbox.Reported) -> None:
        self._holding.reported(event.attempts)
        if self._registration:
            self._registration.reported()

    def _shipped(self, event: mailbox.Shipped) -> None:
        self._holding.shipped(event.attempt, event.position, event.offset)

    def _lease_lost(self, event: mailbox.LeaseLost) -> None:
        if self._part_with(event.worker):
            _log.warning("the lease of worker %s has lapsed: its tasks are ended", event.worker)
            if self._leaving.active:  # a removal, while it is under way, looks the same
                path = f"/workers/{event.worker}"
                check, ends = answers.worker, answers.ENDS_OF_A_WORKER
                self._courier.send(Errand("inquiry", "GET", path, None, check, ends))

    def _inquired(self, event: mailbox.Done) -> None:
        if event.error or event.answer["mode"] == "off":
            removed = BanyanError("not_found", "the worker was removed by an operator")
            self._give_in(event.error or removed)
        elif self._leaving.active:
            self._register()

    def _removed(self, event: mailbox.Removed) -> None:
        if self._part_with(event.worker):
            gone = BanyanError("not_found", f"an operator has removed worker {event.worker}")
            self._give_in(gone if event.error.word == "not_found" else event.error)

    def _give_in(self, error: BanyanError) -> None:
        self._state.forget_identity()
        self._leaving.give_in(error)

    def _part_with(self, worker: str) -> bool:
        """Ends what was done in the name of a registration; False where that is done."""
        if not self._registration or worker != self._registration.worker:
            return False
        self._registration.stop()
        self._registration, self._to_cancel = None, {}
        self._line.clear()
        for attempt in self._holding.attempts:
            self._holding.lose(attempt)
        return True

    def _done(self, event: mailbox.Done) -> None:
        if event.errand == "release":
            self._releases -= 1
        elif event.errand == "deregistration":
            self._state.forget_identity()
            self._leaving.over()
        elif event.errand == "recognition":
            self._recognised(event)
        elif event.errand == "inquiry":
            self._inquired(event)
        elif event.errand == "registration" and event.error:
            self._leaving.over(event.error)
        elif event.errand == "registration" and self._leaving.active:
            self._registered(event.answer)

    def _registered(self, worker: dict[str, Any]) -> None:
        total = self._ledger.total
        memory = f"{total.memory_bytes / 2**30:.1f} GiB"
        has = f"{counted(total.cores, 'core')}, {memory}, {counted(len(total.gpus), 'GPU')}"
        _log.info("worker %s: %s for %s", worker["_id"], has, self._options.url)
        self._work_as(Identity(worker["_id"], worker["lease_seconds"]))

    # --- the launcher ----------------------------------------------------------------

    def _replace_launcher(self) -> None:
        _log.error("the launcher has died: its tasks are ended, and reported as lost")
        self._link.close()
        left = sweep(self._workers, (), self._state.path, self._holding.users)
        if left:
            _log.error("these processes would not end: %s", left)
        self._holding.launcher_died()
        self._holding.hear(self._link.open())

    def _look_after_launcher(self) -> None:
        """Again and again while it owes an answer, as no further beat may come.

        A beat may be held for a quarter of the lease before the launcher is asked: with the half
        that it has to answer, a quarter is left to end its tasks in.
        """
        left_seconds = self._link.check(self._silence_seconds())
        if left_seconds is not None:
            self._timers.set("launcher", now() + left_seconds)

    def _silence_seconds(self) -> float:
        lease = self._registration.lease_seconds if self._registration else knobs().LEASE_SECONDS
        return float(max(lease / 2, _SILENCE_SECONDS_MIN))


def main(options: Options) -> int:
    """Works until SIGTERM or SIGINT; the exit code.

    Errors: BanyanError `usage` (token, resources), `data_directory_in_use`, and what the
    server says of the token or of the worker's removal.
    """
    logs.begin("worker", logging.INFO, "%(levelname)s ")
    token = read_token(options.token_file)
    identity.check(options)
    Secrets(options.secrets_file).check()
    try:
        resources: dict[str, Any] = normalise_capacity(inventory.resources(options))
    except ResourceError as error:
        raise BanyanError("usage", "these resources cannot be given", error.issues) from None
    state = open_state(options.state_directory, options.url)
    try:
        return Agent(options, token, state, resources).run()
    except OSError as error:  # what runs is ended by the launcher, in its time
        raise BanyanError("unavailable", f"the worker cannot go on: {error}") from error
    finally:
        state.close()
