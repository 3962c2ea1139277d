"""The attempts that this worker holds, from the claim until their end is recorded.

Owned by the agent's loop: it starts and stops them through the launcher, keeps the ledger, and
hands to the reports what there is to tell. It must never give an attempt's resources to another
while a process of it may live.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from banyan.client.trust import for_other_user, readable
from banyan.config import knobs
from banyan.domain.resources import Grant
from banyan.worker import environment, identity
from banyan.worker.ahead import Task
from banyan.worker.answers import Unusable
from banyan.worker.behind import Behind, Waiting
from banyan.worker.endings import end_of, failed_at_start
from banyan.worker.gpu_samples import GpuSamples
from banyan.worker.hearer import Hearer
from banyan.worker.ledger import Ledger
from banyan.worker.limits import Limits
from banyan.worker.link import Link
from banyan.worker.options import Options
from banyan.worker.output import Reader
from banyan.worker.secrets_file import SecretMissing, Secrets
from banyan.worker.state import StateDirectory
from banyan.worker.timers import now
from banyan.worker.wire import Message

_GRACE_SECONDS_DEFAULT = 600.0
_BEGIN_SECONDS = 60.0  # a directory that is mounted when it is first looked at may take a while

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """One attempt. What of it must survive this process is kept by the launcher."""

    task: str
    token: str
    grace_seconds: float  # from SIGTERM to SIGKILL
    stopping: str | None = None
    stopping_seconds: float = 0.0  # what it was given to end in, at the last word
    ended: bool = False
    reported: bool = False
    silent: bool = False  # it is not ours any more: nothing is reported of it
    stuck: bool = False  # processes of it would not end, and keep its resources
    has_file: bool = False  # for its output


class Holding:
    """All of them."""

    def __init__(
        self, options: Options, state: StateDirectory, link: Link, ledger: Ledger, reports: Hearer
    ) -> None:
        self._url = options.url
        self._limits = Limits(
            enforcement=options.memory_enforcement,
            nice=options.nice,
            processes=options.max_processes,
        )
        self._gives_no_gpus = options.gpu_count == 0  # there may be some: tasks see none of them
        self._state = state
        self._link = link
        self._ledger = ledger
        self._reports = reports
        self._samples = GpuSamples(lambda attempt, sample: reports.sample(attempt, sample))
        self._user = identity.user_for(options)
        self.users = identity.users_of_tasks(options)
        self._secrets = Secrets(options.secrets_file)
        self._base_environment = environment.base_environment(
            os.environ,
            self._user,
            for_other_user(readable(options.tls_ca)) if self._user else readable(options.tls_ca),
            environment.own_programs(),
            options.socket,
        )
        home = self._user.directory() if self._user else os.getcwd()
        self._home = environment.for_launcher(home)
        self._held: dict[str, Held] = {}
        self.worker = ""  # in whose name tasks are started
        self._behind = Behind()
        self.to_release: list[str] = []  # tokens of attempts that others may take
        self.called_back: list[tuple[Task, float]] = []  # not begun; claimed since
        self.short = False  # the machine could not start a process

    @property
    def busy(self) -> bool:
        """True while there is an attempt to wait for."""
        return bool(self.to_release) or any(not held.stuck for held in self._held.values())

    @property
    def attempts(self) -> list[str]:
        """Those that are still the worker's business with the server; asked by other threads."""
        return [attempt for attempt, held in self._held.copy().items() if not held.silent]

    @property
    def running(self) -> list[str]:
        """Those that have not ended."""
        return [attempt for attempt, held in self._held.items() if not held.ended]

    def stuck(self) -> dict[str, Any]:
        """What attempts that the server holds no longer keep: processes that would not end, memory.

        {"stuck": {"cores", "memory_bytes", "gpu_count"}}, or empty; asked by other threads.
        """
        held = self._held.copy()
        kept = self._ledger.kept_by(a for a, each in held.items() if each.stuck and each.reported)
        return {"stuck": kept} if kept else {}

    # --- what the agent wants --------------------------------------------------------

    def start(self, task: Task, before: float) -> None:
        """Starts a claimed task, unless it is known; `before`: seconds since boot."""
        attempt = str(task["attempt_id"])
        if attempt in self._held:
            return
        grant = Grant.from_json(task["granted_resources"])
        if not self._ledger.fits(grant):
            _log.warning("task %s was claimed and does not fit", task["_id"])
            self.to_release.append(task["token"])
            return
        self._ledger.take(attempt, grant)
        self._begin(task, before, attempt)
        if attempt in self._held and not self._held[attempt].ended:
            self._behind.started(attempt, str(task["granted_resources"]), now())

    def start_behind(self, runner: str, task: Task, since: float, before: float) -> None:
        """Has a task claimed at `since` start where `runner` has ended; else as `start`."""
        attempt = str(task["attempt_id"])
        if attempt not in self._held:
            after = self._behind.last_of(runner)
            self._behind.add(runner, Waiting(attempt, task, since))
            self._begin(task, before, runner, after)

    def refuse(self, unusable: Iterable[Unusable]) -> None:
        """Ends claimed tasks that cannot be started as failed."""
        for task, attempt, token, reason in unusable:
            if attempt not in self._held:
                _log.error("task %s was not started: %s", task, reason)
                self._follow(attempt, {"task": task, "token": token, "grace_seconds": 0}, (0, 0))
                self._ended(failed_at_start(attempt, reason))

    def _begin(self, task: Task, before: float, place: str, after: str = "") -> None:
        """Tells the launcher; `place` is the attempt that holds what this one is to have."""
        attempt = str(task["attempt_id"])
        gpus, cpus = list(self._ledger.gpus_of(place)), self._ledger.cpus_of(place)
        keep = {
            "task": str(task["_id"]),
            "token": task["token"],
            "grace_seconds": _grace_seconds(task),
            "granted": task["granted_resources"],
            "gpus": gpus,
            "cpus": cpus,
        }
        self._follow(attempt, keep, (0, 0))
        try:
            asked = self._secrets.resolved(task.get("env") or {})
        except SecretMissing as problem:
            self._ended(failed_at_start(attempt, str(problem)))
            return
        process = self._process_of({**task, "env": asked}, gpus, cpus)
        self._link.say({**process, "after": after, "before": before, "keep": keep})

    def _process_of(self, task: Task, gpus: list[int], cpus: tuple[int, ...]) -> Message:
        """What the launcher is to start for a task."""
        counts_gpus = bool(self._ledger.total.gpus) or self._gives_no_gpus
        granted = task["granted_resources"]
        bounds = {name: granted[name] for name in ("memory_bytes", "cores")}
        limits = replace(self._limits, **bounds, cpus=cpus)
        return {
            "do": "start",
            "attempt": str(task["attempt_id"]),
            "argv": environment.command_argv(task["command"]),
            "env": environment.task_environment(
                self._base_environment, task, self._url, self.worker, gpus, counts_gpus
            ),
            "user": self._user.to_json() if self._user else None,
            "cwd": task.get("cwd") or self._home,
            "timeout_seconds": _seconds(task.get("timeout_milliseconds")),
            "grace_seconds": _grace_seconds(task),
            "begin_seconds": _BEGIN_SECONDS,
            **environment.room_for_output(task, knobs().LOG_BYTES_MAX),
            "limits": limits.to_json(),
            "all_memory_bytes": self._ledger.total.memory_bytes,
        }

    def stop(self, attempt: str, why: str, grace_seconds: float | None = None) -> None:
        """SIGTERM, and SIGKILL after the grace (None: the task's own); then it ends as `why`."""
        held = self._held.get(attempt)
        if held is None or held.ended:
            return
        grace = held.grace_seconds if grace_seconds is None else grace_seconds
        if held.stopping == why and grace >= held.stopping_seconds:
            return  # said again, with no less time
        held.stopping, held.stopping_seconds = why, grace
        self._behind.stop(attempt)
        self.call_back(self._behind.of(attempt))  # it may take its time
        self._link.say({"do": "stop", "attempt": attempt, "why": why, "grace_seconds": grace})

    def lose(self, attempt: str) -> None:
        """It is not this worker's any more: it is killed at once, and nothing reported."""
        held = self._held.get(attempt)
        if held is None or held.silent:
            return
        held.silent = True
        self._reports.drop(attempt)
        if held.ended:
            self.reported([attempt])
        else:
            self.stop(attempt, "lost", 0)

    def reported(self, attempts: Sequence[str]) -> None:
        """Their ends are recorded, or need not be."""
        for attempt in attempts:
            if held := self._held.get(attempt):
                held.reported = True
                if held.has_file:  # the launcher that would remove it may have died
                    self._state.output_of(attempt).unlink(missing_ok=True)
                if not held.stuck:
                    del self._held[attempt]
        self._link.say({"do": "forget", "attempts": attempts})

    def shipped(self, attempt: str, position: int, offset: int) -> None:
        """So much of its output is recorded."""
        message = {"do": "shipped", "attempt": attempt, "position": position, "offset": offset}
        self._link.say(message)

    # --- what waits behind others ----------------------------------------------------

    @property
    def waiting(self) -> list[str]:
        """Attempts that the launcher is to start when another has ended."""
        return self._behind.attempts

    def room_behind(self, kind: str) -> str | None:
        """The attempt behind which one more of this kind may wait."""
        return None if self._ledger.is_overdrawn else self._behind.room(kind, now())

    def call_back(self, attempts: Collection[str]) -> None:
        """Of these, what has not begun is to come back: see `called_back`."""
        calling = self._behind.call_back(attempts)
        if calling:
            self._link.say({"do": "withdraw", "attempts": calling})

    def call_back_since(self, moment: float) -> None:
        """All that was claimed at that moment or earlier (seconds since boot)."""
        self.call_back([each.attempt for each in self._behind.all() if each.since <= moment])

    def call_back_where(self, room: Callable[[Grant], bool]) -> None:
        """One for which there is room elsewhere by now."""
        last = self._behind.last() if self._behind else None
        if last and last.task and room(Grant.from_json(last.task["granted_resources"])):
            self.call_back([last.attempt])

    # --- what the launcher says ------------------------------------------------------

    def hear(self, message: Message) -> None:
        """One message of the launcher."""
        match message["is"]:
            case "hello":
                self._take_over(message)
            case "output":
                self._reports.output(message["attempt"])
            case "sample":
                attempt = message["attempt"]
                self._samples.add(attempt, message, self._ledger.gpus_of(attempt))
            case "ended":
                self._ended(message)
            case "withdrawn":
                self._came_back(message["attempt"])
            case "cleared":
                self._cleared(message["attempt"])
            case "left":
                self._left(message["memory_bytes"])

    def launcher_died(self) -> None:
        """What ran is dead by now (see `sweep`): it is lost. What waited has not begun."""
        for attempt in self.waiting:
            self._came_back(attempt)
        for attempt in self.running:
            ended = {"attempt": attempt, "why": "launcher", "time_ended": time.time()}
            self._ended({**ended, "inline": None})

    def _left(self, memory_bytes: int) -> None:
        if memory_bytes:
            _log.warning("earlier tasks have left %d MiB in memory", memory_bytes >> 20)
        if self._ledger.set_left(memory_bytes):
            self.call_back(self.waiting)

    def _take_over(self, hello: Message) -> None:
        """Goes on with what an agent before this one has left."""
        self._left(hello.get("left_bytes", 0))
        for each in hello["running"] + hello["ended"]:
            attempt = each["attempt"]
            if attempt not in self._held:
                keep = each["keep"]
                grant = Grant.from_json(keep["granted"])
                self._ledger.take(attempt, grant, tuple(keep["gpus"]), tuple(keep["cpus"]))
                self._follow(attempt, keep, each["shipped"])
            if "is" in each:
                self._ended(each)
            elif each.get("reported"):  # a launcher of an earlier version does not say so
                self._stays(attempt)
            else:
                self._reports.output(attempt)
                self._behind.started(attempt, str(each["keep"]["granted"]), now())
        for each in hello["waiting"]:
            attempt = each["attempt"]
            if attempt not in self._held:
                self._follow(attempt, each["keep"], (0, 0))
                self._behind.add(each["after"], Waiting(attempt, None, now()))

    def _stays(self, attempt: str) -> None:
        """An agent before this one has reported its end; processes of it are still there."""
        held = self._held[attempt]
        held.ended = held.reported = held.stuck = True
        self._reports.drop(attempt)

    def _follow(self, attempt: str, keep: Mapping[str, Any], shipped: tuple[int, int]) -> None:
        self._held[attempt] = Held(keep["task"], keep["token"], keep["grace_seconds"])
        reader = Reader(self._state.output_of(attempt), *shipped)
        self._reports.follow(attempt, keep["task"], keep["token"], reader)

    def _ended(self, message: Message) -> None:
        attempt = message["attempt"]
        held = self._held.get(attempt)
        if held is None or held.ended:
            return
        held.ended = True
        held.has_file = message["inline"] is None
        held.stuck = bool(message.get("left"))
        if lost := message.get("output_lost"):
            _log.error("task %s: %s, in %s", held.task, lost, self._state.path)
        if attempt in self._behind:
            self._behind.take_out(attempt)
        if spent := message.get("spent"):
            said = "processes %s of task %s hold nothing any more, but others keep them from going"
            _log.warning(said, spent, held.task)
        if held.stuck:
            _log.error("processes %s of task %s would not end", message["left"], held.task)
            self.call_back(self._behind.of(attempt))
        else:
            self._make_room(attempt)
        if message["why"] == "not_started":
            _log.error("task %s was not started: %s", held.task, message["reason"])
            self.short = True
        if held.silent or message["why"] == "lost":
            self.reported([attempt])
        elif message["why"] in ("released", "not_started"):
            self._reports.drop(attempt)
            self.to_release.append(held.token)
            self.reported([attempt])
        else:
            size = message.get("size", 0)
            self._reports.ended(attempt, end_of(message), message["inline"], size)

    def _make_room(self, ended: str) -> None:
        """What it held is the next one's, which the launcher has started, or nobody's."""
        following = self._behind.ended(ended, now())
        if following:
            self._ledger.pass_on(ended, following)
        else:
            self._ledger.give_back(ended)

    def _came_back(self, attempt: str) -> None:
        if attempt in self._behind:
            waiting = self._behind.take_out(attempt)
            held = self._held.pop(attempt)
            self._reports.drop(attempt)
            if waiting.task and not held.silent:
                self.called_back.append((waiting.task, waiting.since))
            else:
                self.to_release.append(held.token)

    def _cleared(self, attempt: str) -> None:
        """What was stuck has gone after all."""
        self._make_room(attempt)
        if held := self._held.get(attempt):
            held.stuck = False
            if held.reported:
                del self._held[attempt]


def _grace_seconds(task: Task) -> float:
    """From SIGTERM to SIGKILL."""
    grace = _seconds(task.get("max_shutdown_time_milliseconds"))
    return _GRACE_SECONDS_DEFAULT if grace is None else grace


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
