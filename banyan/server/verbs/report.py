"""What the worker that holds an attempt reports: start, samples, output, and the end.

Many reports go one way with one: one read, pure decisions, one write to the tasks, one
to the attempts, one to the logs, and the settling of what ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bson import ObjectId

from banyan.config import knobs
from banyan.domain import lifecycle
from banyan.domain.attempts import believed
from banyan.domain.lifecycle import Change, Refusal, Same
from banyan.domain.states import HELD, State
from banyan.errors import BanyanError
from banyan.server import aftermath, conditions, represent, validation
from banyan.server.auth import attempt_token
from banyan.server.calls import Answer, Call
from banyan.server.schemas.attempts import EXECUTION_DATA, LOG_CHUNKS_MAX
from banyan.server.schemas.tasks import SCHEMA
from banyan.server.scoped import missing
from banyan.server.store import attempts, batches, logs, sizes, tasks
from banyan.server.store.mongo import FORGETTABLE, MAJORITY, Document, now
from banyan.server.verbs.leases import check_token, demand_token

_ROUNDS = 5
# What a worker may send besides `update_execution_data`; read-only to everybody else.
OWN_FIELDS = {
    "state": {"type": "string", "allowed": ["terminated", "cancelled"]},
    "progress": {**SCHEMA["progress"], "readonly": False},
    "result": {**SCHEMA["result"], "readonly": False},
}
_NO_FURTHER = {"max_attempt_count": 0, "max_lost_count": -1}
_PEAKS = ("peak_memory_bytes",)
_FIELDS = ("time_started", "reason", "cpu_seconds")
_END_FIELDS = ("exit_status", "time_terminated", "time_started", "reason", "cpu_seconds")


@dataclass(frozen=True)
class Report:
    """One item of a request: the state that the worker asks for, if any, and its data.

    fields: of the task itself, which only its attempt may write (progress, result).
    """

    task_id: ObjectId
    target: State | None
    data: Mapping[str, Any]
    fields: Mapping[str, Any]


Result = Document | BanyanError


def update_execution_data(call: Call) -> Answer:
    """POST|PATCH /tasks/<id>/update_execution_data."""
    assert call.item_id is not None  # noqa: S101 - the row has the level `item` only
    report = read_report(call.item_id, {"update_execution_data": call.body}, call)
    result = report_many(call, [report])[0]
    if isinstance(result, BanyanError):
        raise result
    return Answer(result)


def refuse_too_many_chunks(bodies: Iterable[Any]) -> None:
    """What output costs grows with the number of its pieces. Errors: `too_large`."""
    count = 0
    for body in bodies:
        data = body.get("update_execution_data") if isinstance(body, dict) else None
        log = data.get("log") if isinstance(data, dict) else None
        count += len(log) if isinstance(log, list) else 0
    if count > LOG_CHUNKS_MAX:
        message = f"{count} pieces of output: send at most {LOG_CHUNKS_MAX} in a request"
        raise BanyanError("too_large", f"{message}; join what one stream has said")


def read_report(task_id: ObjectId, body: Mapping[str, Any], call: Call) -> Report:
    """A report from a PATCH's body. Errors: `token_missing` before `invalid`."""
    given = body.get("update_execution_data")
    given = {} if given is None else given
    if isinstance(given, dict) and "token" not in given:
        token = call.headers.get("Banyan-Attempt-Token")
        if call.caller.attempt:
            token = attempt_token(call.context.attempt_secret, call.caller.attempt)
        demand_token(token)
        given = {**given, "token": token}
    data = validation.demand(EXECUTION_DATA, given, update=True)
    demand_token(data.get("token"))  # before anything is told of the task
    own = {name: body[name] for name in body.keys() - {"update_execution_data"}}
    fields = validation.demand(OWN_FIELDS, own, update=True)
    if "result" in fields:
        _check_result(fields["result"])
    state = fields.pop("state", None)
    return Report(task_id, State(state) if state else None, data, fields)


def _check_result(result: Any) -> None:
    """Errors: `too_large`."""
    found, limit = sizes.bytes_of(result), knobs().RESULT_BYTES_MAX
    if found > limit:
        message = f"a result may take {limit} bytes, and this one takes {found}"
        raise BanyanError("too_large", f"{message}: write it to a file, and give back its name")


def report_many(call: Call, reports: Sequence[Report], as_a_whole: bool = False) -> list[Result]:
    """One result for each report: the task as it is now, or why not.

    as_a_whole: nothing is written unless all may be; the first refusal is raised.
    """
    results: dict[int, Result] = {}
    open_ones = dict(enumerate(reports))
    for_good: set[int] = set()  # ends of tasks that have no room for a further attempt
    written: list[Change] = []
    for _ in range(_ROUNDS):
        if not open_ones:
            break
        ids = {report.task_id for report in open_ones.values()}
        found = tasks.find(call.store, ids, fields=_to_read(call, len(reports)))
        decided = {
            index: _decide(call, report, found.get(report.task_id), index in for_good)
            for index, report in open_ones.items()
        }
        results.update({i: one for i, one in decided.items() if isinstance(one, BanyanError)})
        refused = [one for one in decided.values() if isinstance(one, BanyanError)]
        if refused and as_a_whole:
            aftermath.follow(call.context, written, {})  # some may have been, before a lost race
            raise refused[0]
        going = {i: one for i, one in decided.items() if not isinstance(one, BanyanError)}
        writing = {i: (open_ones[i], one, found[one.task_id]) for i, one in going.items()}
        won, too_large = _write(call, writing)
        anew = {i for i in too_large if open_ones[i].target} - for_good
        for_good |= anew
        results.update({index: sizes.too_large() for index in too_large if index not in anew})
        said_before = {one.task_id for one in going.values() if _ends(one) and not one.set}
        call.store.confirm([found[one] for one in said_before])
        for index, fields in won.items():
            task = {**found[reports[index].task_id], **fields}
            results[index] = _shown(call, going[index], task)
        written += [going[index] for index in won if going[index].set]
        open_ones = {i: report for i, report in open_ones.items() if i not in results}
    for index in open_ones:
        results[index] = BanyanError("conflict", "the task keeps changing; report again")
    aftermath.follow(call.context, written, {})
    return [results[index] for index in range(len(reports))]


def _shown(call: Call, change: Change, task: Document) -> Document:
    """Once a report is only repeated, the task may be another's."""
    show = represent.task if change.set else represent.held_before
    return {**show(call, task), "_status": "OK"}


def _to_read(call: Call, count: int) -> Sequence[str] | Mapping[str, Any] | None:
    if call.minimal:
        return [*lifecycle.READ_AT_END, "_etag"]
    return tasks.WITHOUT_RESULT if count > 1 else None


def _decide(
    call: Call, report: Report, task: Document | None, for_good: bool
) -> Change | BanyanError:
    """The change that a report makes; an empty one where it has been made before."""
    if task is None:
        return missing("tasks", report.task_id)
    try:
        attempt_id = check_token(call, task, report.data.get("token"))
        conditions.check(call.if_match, task)
        if report.target is None:
            return conditions.guarded(call.if_match, task, _touch(task, attempt_id, report))
        decision = _decide_end({**task, **_NO_FURTHER} if for_good else task, report)
    except BanyanError as error:
        return error
    if isinstance(decision, Refusal):
        return BanyanError(decision.word, decision.message, extra={"state": task["state"]})
    if isinstance(decision, Same):
        # Said once more, for the server may have been killed in a change of primaries.
        record = lifecycle.record_of_end(task, _end_in(task, report))
        return Change(task["_id"], {}, {}, (), attempt_id, record)
    fields = {**decision.set, **report.fields}
    change = replace(decision, set=fields, attempt_id=attempt_id)
    return conditions.guarded(call.if_match, task, change)


def _decide_end(task: Document, report: Report) -> lifecycle.Decision:
    issues = {
        name: "required when an attempt ends"
        for name in ("exit_status", "time_terminated")
        if report.data.get(name) is None
    }
    if issues:
        message = "an attempt's end needs exit_status and time_terminated"
        raise BanyanError("invalid", message, {"update_execution_data": issues})
    assert report.target is not None  # noqa: S101 - the caller has looked
    return lifecycle.finish(task, report.target, _end_in(task, report), now())


def _end_in(task: Document, report: Report) -> dict[str, Any]:
    said = {name: report.data[name] for name in _END_FIELDS if name in report.data}
    return believed(said, task["holder"], now())


def _touch(task: Document, attempt_id: ObjectId, report: Report) -> Change:
    """A report that ends nothing; an attempt that has ended takes nothing more."""
    unexpected = {"exit_status", "time_terminated"} & report.data.keys()
    if unexpected:
        issues = dict.fromkeys(unexpected, "only together with the new state")
        raise BanyanError("invalid", "see _issues", {"update_execution_data": issues})
    if State(task["state"]) not in HELD:
        state = {"state": task["state"]}
        raise BanyanError("lease_lost", "the attempt has ended", extra=state)
    fields = {name: report.data[name] for name in _FIELDS if name in report.data}
    fields = believed(fields, task["holder"], now())
    changed = dict(report.fields)
    if fields.get("time_started"):
        changed["holder.started"] = True
        changed["holder.spare"] = False
        changed["holder.time_started"] = fields["time_started"]
    expected = {"holder.attempt": attempt_id, "state": task["state"]} if changed else {}
    return Change(task["_id"], expected, changed, (), attempt_id, fields)


def _write(
    call: Call, decided: Mapping[int, tuple[Report, Change, Document]]
) -> tuple[dict[int, Document], list[int]]:
    """What was written to the tasks, of those that won; and which are too large for it.

    decided: the report, what becomes of it, and the task as it was read.

    The output first, then the attempts' records, then the tasks: whoever sees that a task has
    ended finds how its attempt ended, and all that it wrote. One wait for the majority is
    enough for records and tasks: MongoDB hands its writes on in their order.
    """
    output = {index: _chunks(report, change) for index, (report, change, _) in decided.items()}
    short = {i: output[i] for i in output if _ends(decided[i][1]) and logs.is_short(output[i])}
    apart = [chunk for i in output.keys() - short.keys() for chunk in output[i]]
    stored_bytes = logs.append(call.store, apart, knobs().LOG_BYTES_MAX)
    records = [
        _record(*one, output[index], index in short, stored_bytes) for index, one in decided.items()
    ]
    writing = {i: change for i, (_, change, _) in decided.items() if change.set}
    concern = FORGETTABLE if len(writing) == len(decided) else MAJORITY
    said = attempts.report(call.store, records, concern)
    outcome = batches.apply(call.store, list(writing.values()))
    if said.matched and concern is FORGETTABLE and said.term != outcome.term:
        again = [replace(one, counts={}) for one in records]
        attempts.report(call.store, again)  # another primary may not know of it
    written = dict(zip(writing, outcome.written, strict=True))
    refused = [i for i, fields in written.items() if fields == tasks.TOO_LARGE]
    lost = {i for i, fields in written.items() if not fields}
    won = {i: written.get(i) or {} for i in decided if i not in lost}
    for index in won:
        topic = "log" if decided[index][0].data.get("log") else "task"
        call.context.signals.signal(f"{topic}:{decided[index][0].task_id}")
    return won, refused


def _chunks(report: Report, change: Change) -> list[logs.Chunk]:
    """What is to be stored of the output, in order.

    A worker of ours keeps to the bound and says so in the log itself; what lies beyond it, or over
    another piece of the same report, is left out. An end that is repeated brings nothing new,
    but for what its record may lack.
    """
    if not change.attempt_id:
        return []
    chunks: list[logs.Chunk] = []
    end = 0
    for one in sorted(report.data.get("log", ()), key=lambda one: int(one["offset"])):
        data = one["data"][: max(knobs().LOG_BYTES_MAX - one["offset"], 0)]
        if data and one["offset"] >= end:  # an empty one would take the place of what comes there
            end = one["offset"] + len(data)
            place = (report.task_id, change.attempt_id, one["offset"])
            chunks.append(logs.Chunk(*place, one["stream"], data))
    is_repeated = _ends(change) and not change.set
    return [] if is_repeated and not logs.is_short(chunks) else chunks


def _ends(change: Change) -> bool:
    return "time_terminated" in change.attempt


def _record(
    report: Report,
    change: Change,
    task: Document,
    output: list[logs.Chunk],
    in_record: bool,
    stored_bytes: Mapping[ObjectId, int],
) -> attempts.Addition:
    """in_record: the output stands in the record itself; stored_bytes: else, how much is new."""
    log_end = output[-1].offset + len(output[-1].data) if output else 0
    peaks = {name: report.data[name] for name in _PEAKS if name in report.data}
    if log_end:
        peaks["log_size_bytes"] = log_end
    lists = {name: report.data[name] for name in attempts.LISTS if report.data.get(name)}
    fields = change.attempt
    if in_record and output:
        fields = {**fields, "output": logs.in_record(output)}
    # Nothing is added to an end: after it no more output is taken.
    more = stored_bytes.get(change.attempt_id, 0) if change.attempt_id and not _ends(change) else 0
    counts = {logs.STORED: more} if more else {}
    # An end says all that the claim did; other reports say it where there is no record yet.
    since_claim = {} if _ends(change) else lifecycle.since_claim(task)
    return attempts.Addition(
        change.attempt_id, change.task_id, fields, lists, peaks, counts, since_claim
    )
