"""The witnesses of a chaos run: each notices a history that was broken by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness import Server, executions, leftovers, oplog, secrets
from tests.harness.executions import Execution
from tests.harness.oplog import Event, Oplog

TASK = "t"
Document = dict[str, Any]


def inserted(**fields: Any) -> Event:
    document = {"_id": TASK, "state": "available", "attempt_count": 0, "command": "x", **fields}
    return {"operationType": "insert", "documentKey": {"_id": TASK}, "fullDocument": document}


def updated(removed: tuple[str, ...] = (), **fields: Any) -> Event:
    change = {"updatedFields": fields, "removedFields": list(removed)}
    return {"operationType": "update", "documentKey": {"_id": TASK}, "updateDescription": change}


def claimed(attempt: str, count: int, started: bool = True) -> Event:
    holder = {"attempt": attempt, "started": started}
    return updated(state="running", holder=holder, attempt_count=count, attempt_id=attempt)


def ended(outcome: str = "success") -> Event:
    return updated(state="terminated", outcome=outcome, ended_as=outcome)


SOUND = [inserted(), claimed("a", 1), ended()]
LOST = updated(("holder",), state="available")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([inserted(), updated(state="terminated")], "available became terminated"),
        ([*SOUND, updated(state="available")], "nobody had it retried"),
        ([*SOUND, updated(outcome="failure")], "its end changed"),
        ([inserted(), claimed("a", 1), claimed("b", 2)], "took it from a, which had started"),
        ([inserted(), claimed("a", 1), LOST, claimed("a", 2)], "had ended, and holds it again"),
        ([inserted(), claimed("a", 2)], "grew by 2"),
    ],
)
def test_a_write_that_breaks_a_rule_is_found(events: list[Event], message: str):
    wrong, _ = oplog.replay(events)
    assert any(message in one.message for one in wrong), wrong


@pytest.mark.parametrize(
    "events",
    [
        SOUND,
        [*SOUND, updated(state="available", revival_count=1, outcome=None), claimed("b", 2)],
        [inserted(), claimed("a", 1), LOST, claimed("b", 2), ended()],
        [inserted(), claimed("a", 1, started=False), claimed("b", 2), ended()],
        [inserted(), claimed("a", 1), updated(**{"holder.spare": False}), ended()],
        [inserted(state="cancelled", command=None), updated(state="terminated", revival_count=1)],
    ],
)
def test_a_sound_history_is_let_pass(events: list[Event]):
    assert oplog.replay(events)[0] == []


def test_the_writes_of_a_real_server_lead_to_what_is_stored(server: Server, module_database: str):
    witness = Oplog(module_database)
    ids = [f"{number:024x}" for number in (1, 2)]
    tasks = [
        {"_id": ids[0], "command": "true", "state": "available", "continuations": [ids[1]]},
        {"_id": ids[1], "command": "true"},
    ]
    assert server.provider.post("tasks", tasks).status_code == 201
    server.provider.post(f"tasks/{ids[0]}/cancel")
    server.provider.post(f"tasks/{ids[0]}/retry", {"downstream": True})
    wrong, lives = oplog.replay(witness.events())
    assert wrong == []
    moves = {str(task): life.moves for task, life in lives.items()}
    assert moves[ids[0]] == ["available", "cancelled", "available"]
    assert moves[ids[1]] == ["inactive", "cancelled", "inactive"]


RAN = Execution(TASK, "a", 1, 10.0, 11.0, 0, alone=True)
RECORD = {"task": TASK, "attempt_count": 1, "exit_status": "success", "exit_code": 0}


@pytest.mark.parametrize(
    ("ran", "records", "message"),
    [
        ([RAN, RAN], {"a": RECORD}, "started twice"),
        ([RAN], {}, "there is no record of it"),
        ([RAN], {"a": {**RECORD, "attempt_count": 2}}, "there is no record of it"),
        ([Execution(TASK, "a", 1, 10.0, 11.0, 0, alone=False)], {"a": RECORD}, "beside"),
        ([], {"a": RECORD}, "and nothing ran"),
        ([Execution(TASK, "a", 1, 10.0, None, None, alone=True)], {"a": RECORD}, "ended in None"),
        ([RAN], {"a": {**RECORD, "exit_status": "failure (3)", "exit_code": 3}}, "ended in 0"),
    ],
)
def test_what_ran_and_what_is_recorded_must_agree(
    ran: list[Execution], records: dict[str, Document], message: str
):
    wrong = executions.check(ran, records)
    assert any(message in text for _, text in wrong), wrong


def test_what_is_admitted_may_run_beside_another():
    beside = Execution(TASK, "a", 1, 10.0, 11.0, 0, alone=False)
    assert executions.check([beside], {"a": RECORD}, may_overlap={TASK}) == []
    assert executions.check([RAN], {"a": RECORD}) == []
    killed = Execution(TASK, "a", 1, 10.0, None, None, alone=True)
    assert (
        executions.check([killed], {"a": {**RECORD, "exit_status": "lost", "exit_code": None}})
        == []
    )


def test_a_child_that_began_before_its_parent_had_ended_is_found():
    child = Execution("child", "b", 1, 10.5, 12.0, 0, alone=True)
    parents = {"child": [TASK]}
    assert executions.out_of_order([RAN, child], parents) != []
    later = Execution("child", "b", 1, 11.5, 12.0, 0, alone=True)
    assert executions.out_of_order([RAN, later], parents) == []


def test_a_log_of_executions_is_read_whatever_was_cut_off(tmp_path: Path):
    log = tmp_path / "executed"
    log.write_text(
        "start t a 1 7 10.0 alone\nstart u b 1 8 10.5 beside\nend t a 1 7 11.0 0\nend u b"
    )
    assert executions.read(log) == [RAN, Execution("u", "b", 1, 10.5, None, None, alone=False)]


@pytest.mark.parametrize("secret", ["canary-123", f"att_{'0' * 24}_{'f' * 64}"])
def test_a_secret_in_a_log_is_found_and_not_told(tmp_path: Path, secret: str):
    log = tmp_path / "log"
    log.write_text("all is well\n")
    assert secrets.leaks([log], ["canary-123"]) == []
    log.write_text(f"refused: {secret}\n")
    (leak,) = secrets.leaks([log], ["canary-123"])
    assert str(log) in leak
    assert secret not in leak


def test_a_file_that_a_worker_left_is_found(tmp_path: Path):
    (tmp_path / "lock").touch()
    assert leftovers.files([tmp_path]) == []
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "a").write_text("x")
    (left,) = leftovers.files([tmp_path])
    assert "output/a" in left
