"""The verdict on a run: every invariant, held against all that is known of it.

Five witnesses: the database (through the doctor), its own log, the clients' history, the log
that executed tasks wrote, and what went over the wire; and what is left on the machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from banyan.domain.continuations import PARENT_LISTS, parents_of, satisfied
from banyan.domain.states import ENDED, Ending
from banyan.server.doctor import examine
from banyan.server.store.mongo import Store
from tests.chaos.graphs import Kind
from tests.chaos.stage import Stage
from tests.harness import executions, leftovers, oplog, secrets
from tests.harness.history import History
from tests.harness.oplog import Oplog

Document = dict[str, Any]


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept: by which check, of what, and all that is known of it."""

    check: str
    subject: str
    message: str
    story: list[str] = field(default_factory=list)


@dataclass
class Case:
    """What the judge is given."""

    stage: Stage
    history: History
    oplog: Oplog
    kind: Kind
    canary: str
    tasks: dict[str, Document] = field(default_factory=dict)
    attempts: dict[str, Document] = field(default_factory=dict)
    lives: dict[Any, oplog.Life] = field(default_factory=dict)
    executed: list[executions.Execution] = field(default_factory=list)


def judge(case: Case) -> tuple[list[Violation], dict[str, int]]:
    """Ends the stage, looks at everything; the violations, and what was counted."""
    wrong: list[Violation] = []
    try:
        case.stage.stop()
    except AssertionError as error:
        wrong.append(Violation("leftovers", "", f"not all ended in order: {error}"))
    _read(case)
    for check in (_doctor, _oplog, _submitted, _executed, _in_order, _wire, _left, _secrets):
        wrong += check(case)
    case.stage.stop_database()
    told = [
        Violation(one.check, one.subject, one.message, _story(case, one.subject)) for one in wrong
    ]
    return told, _counts(case)


def _read(case: Case) -> None:
    with case.stage.members_client() as client:
        database = client["banyan"]
        case.tasks = {str(task["_id"]): task for task in database["tasks"].find()}
        case.attempts = {str(one["_id"]): one for one in database["attempts"].find()}
    case.executed = executions.read(case.kind.directory / "executed")


def _doctor(case: Case) -> Iterator[Violation]:
    store = Store(case.stage.members.uri)
    for one in examine(store, again_after_seconds=0):
        yield Violation(f"doctor: {one.check}", one.subject, one.message)
    store.close()


def _oplog(case: Case) -> Iterator[Violation]:
    wrong, case.lives = oplog.replay(case.oplog.events())
    for one in wrong:
        yield Violation("oplog", str(one.task), one.message)
    for task_id, task in case.tasks.items():
        life = case.lives.get(task["_id"])
        if life is None or life.document.get("state") != task["state"]:
            yield Violation("oplog", task_id, "its writes do not lead to what is stored")


def _submitted(case: Case) -> Iterator[Violation]:
    """What was acknowledged is there, what nobody sent is not, and lists are never halved."""
    sent: set[str] = set()
    for line in case.history.lines():
        if line["operation"] != "submit":
            continue
        sent.update(line["tasks"])
        there = [one for one in line["tasks"] if one in case.tasks]
        known = line["outcome"] == "refused" and "already_exists" in line["told"]
        if (known or line["outcome"] == "ok") and len(there) < len(line["tasks"]):
            lost = sorted(set(line["tasks"]) - set(there))
            yield Violation("lost", lost[0], f"acknowledged, and not there: {lost}")
        if line["outcome"] == "refused" and not known:
            yield Violation("refused", line["tasks"][0], f"{line['status']}: {line['told']}")
        if line["outcome"] == "unknown" and 0 < len(there) < len(line["tasks"]):
            yield Violation("halved", there[0], f"only {there} of {line['tasks']} are there")
    for task in case.tasks.keys() - sent:
        yield Violation("unexpected", task, "nobody submitted it")


def _executed(case: Case) -> Iterator[Violation]:
    admitted = _admitted(case)
    for task, message in executions.check(case.executed, case.attempts, admitted):
        yield Violation("executions", task, message)


def _admitted(case: Case) -> set[str]:
    """Tasks that were on a worker while it stood still as a whole."""
    with case.stage.members_client() as client:
        hosts = {one["_id"]: one["host"] for one in client["banyan"]["workers"].find()}
    found = set()
    for attempt in case.attempts.values():
        host = hosts.get(attempt["worker"])
        claimed = attempt["time_claimed"].timestamp()
        ended = attempt.get("time_terminated")
        for name, begun, over in case.stage.admitted:
            if host == name and claimed < over and (not ended or ended.timestamp() > begun):
                found.add(str(attempt["task"]))
    return found


def _in_order(case: Case) -> Iterator[Violation]:
    """A task ran only after all of its parents had ended, each in a way that lets it run."""
    calm = {one: task for one, task in case.tasks.items() if not _was_revived(case, task)}
    parents = {one: [str(p) for p in parents_of(task)] for one, task in calm.items()}
    for task, message in executions.out_of_order(case.executed, parents):
        yield Violation("order", task, message)
    for one, task in calm.items():
        above = [case.tasks[p] for p in parents[one] if p in case.tasks]
        bad = [
            parent["_id"]
            for parent in above
            if parent["state"] in ENDED
            and not satisfied(task, parent["_id"], Ending(parent["ended_as"]))
        ]
        ran = task["attempt_count"] > 0 or task["state"] == "terminated"
        if ran and bad:
            yield Violation("order", one, f"it ran, though {bad} ended the wrong way for it")
        if task.get("cancelled_because") and not bad:
            yield Violation("order", one, "it was cancelled because of a parent that ended well")
        on_request = str(task.get("reason")).startswith("cancelled on request")
        if task["state"] == "cancelled" and not (ran or bad or on_request):
            yield Violation("order", one, f"it never ran: {task.get('reason')}")


def _was_revived(case: Case, task: Document) -> bool:
    above = [case.tasks.get(str(one)) for name in PARENT_LISTS for one in task[name]]
    return any(one and one.get("revival_count") for one in (task, *above))


def _wire(case: Case) -> Iterator[Violation]:
    for answer in case.stage.wire.seen.wrong:
        yield Violation("wire", "", f"an answer that must never be given: {answer}")


def _left(case: Case) -> Iterator[Violation]:
    for path in leftovers.files(post.directory for post in case.stage.posts):
        yield Violation("leftovers", "", f"a file was left: {path}")
    ours = tuple(f"-{pid}" for pid in case.stage.launchers)
    for path in leftovers.cgroups():
        if any(part.endswith(ours) for part in path.split("/")):
            yield Violation("leftovers", "", f"a cgroup was left: {path}")


def _secrets(case: Case) -> Iterator[Violation]:
    directory = case.stage.directory
    logs = [*(directory / "processes").iterdir(), *(directory / "mongo").glob("*/log")]
    logs += [path for post in case.stage.posts for path in post.directory.glob("*.stderr")]
    members = case.stage.members
    known = [case.canary, members.password, members.key.read_text(), *case.stage.tokens.values()]
    for leak in secrets.leaks(logs, known):
        yield Violation("secrets", "", f"a secret stands in a log: {leak}")


def _story(case: Case, subject: str) -> list[str]:
    """All that the witnesses say of one task."""
    if subject not in case.tasks and not any(e.task == subject for e in case.executed):
        return []
    task = case.tasks.get(subject, {})
    told = [f"task { ({name: task[name] for name in task.keys() - {'command', 'env'}}) }"]
    life = case.lives.get(task.get("_id"))
    told += [f"states {' > '.join(life.moves)}"] if life else []
    mine = [one for one in case.attempts.values() if str(one["task"]) == subject]
    told += [f"attempt {one}" for one in sorted(mine, key=lambda one: one["attempt_count"])]
    told += [f"executed {one}" for one in case.executed if one.task == subject]
    told += [f"client {line}" for line in case.history.lines() if subject in str(line)]
    return told


def _counts(case: Case) -> dict[str, int]:
    counts = {"tasks": len(case.tasks), "attempts": len(case.attempts)}
    counts["executions"] = len(case.executed)
    for task in case.tasks.values():
        name = f"ended {task.get('outcome') or task['state']}"
        counts[name] = counts.get(name, 0) + 1
    lost = [one for one in case.attempts.values() if one.get("exit_status") == "lost"]
    counts["attempts lost"] = len(lost)
    counts["ran beside another"] = sum(not one.alone for one in case.executed)
    return counts
