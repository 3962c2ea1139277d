"""Attempts: their records, the tokens that every write about them needs, and how they end."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.playing import Play, chunk, held, now, word
from tests.contract.playing import play as play
from tests.harness import Api

RECORD = {
    "task", "attempt_count", "worker", "granted_resources", "time_claimed", "time_started",
    "time_terminated", "exit_status", "exit_code", "signal", "log_size_bytes",
}  # fmt: skip


# --- The record of an attempt --------------------------------------------------------------


def test_an_attempt_has_a_record_with_all_that_is_known_of_it(play: Play):
    player, task, item = held(play, requested_resources={"cores": 2, "memory": "1 GiB"})
    memory = {"time": now(), "resident_memory_bytes": 7, "virtual_memory_bytes": 9}
    cpu = {"time": now(), "utilization_percent": 99.5}
    gpu = {"time": now(), "ordinal": 0, "used_memory_bytes": 5}
    player.report(item, time_started=now())
    player.report(item, memory_usage=[memory], cpu_utilization=[cpu], gpu_usage=[gpu])
    player.report(item, messages=[{"text": "half way"}], peak_memory_bytes=7, cpu_seconds=1.5)
    player.report(item, log=[chunk(0, b"hello")])
    assert player.end(item, "failure (3)").status_code == 200
    found = play.server.provider.get("attempts", where=f'{{"task":"{task}"}}').json()["_items"]
    (attempt,) = found
    assert attempt.keys() >= RECORD
    assert attempt["worker"] == player.id
    assert attempt["granted_resources"]["cores"] == 2
    assert attempt["granted_resources"]["memory_bytes"] == 2**30
    assert attempt["time_claimed"] <= attempt["time_started"] <= attempt["time_terminated"]
    assert (attempt["exit_status"], attempt["exit_code"]) == ("failure (3)", 3)
    assert attempt["signal"] is None
    assert (attempt["memory_usage"], attempt["cpu_utilization"]) == ([memory], [cpu])
    assert attempt["gpu_usage"] == [gpu]
    assert [message["text"] for message in attempt["messages"]] == ["half way"]
    assert (attempt["peak_memory_bytes"], attempt["cpu_seconds"]) == (7, 1.5)
    assert attempt["log_size_bytes"] == 5


def test_samples_are_appended_and_peaks_only_grow(play: Play):
    player, task, item = held(play)
    for bytes_ in (5, 9, 2):
        sample = {"time": now(), "resident_memory_bytes": bytes_}
        assert player.report(item, memory_usage=[sample], peak_memory_bytes=bytes_).ok
    shown = play.server.provider.get(f"tasks/{task}/memory_usage").json()["memory_usage"]
    assert [sample["resident_memory_bytes"] for sample in shown] == [5, 9, 2]
    (attempt,) = play.attempts(task)
    assert attempt["peak_memory_bytes"] == 9


@pytest.mark.parametrize(
    ("exit_status", "outcome", "exit_code", "signal"),
    [
        ("success", "success", 0, None),
        ("failure (1)", "failure", 1, None),
        ("failure (SIGSEGV)", "failure", None, "SIGSEGV"),
        ("timeout", "timeout", None, None),
        ("oom", "oom", None, None),
    ],
)
def test_the_end_of_an_attempt_is_the_outcome_of_its_task(
    play: Play, exit_status: str, outcome: str, exit_code: int | None, signal: str | None
):
    player, task, item = held(play)
    answer = player.end(item, exit_status)
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["outcome"]) == ("terminated", outcome)
    (attempt,) = play.attempts(task)
    assert (attempt["exit_code"], attempt["signal"]) == (exit_code, signal)


def test_attempts_are_never_overwritten(play: Play):
    player, task, item = held(play, max_attempt_count=2)
    player.report(item, log=[chunk(0, b"first")])
    player.end(item, "failure (1)")
    (first,) = play.attempts(task)
    (item,) = player.claim(1)
    assert item["attempt_count"] == 2
    player.end(item)
    before, second = play.attempts(task)
    assert before == first
    assert (second["attempt_count"], second["exit_status"]) == (2, "success")
    log = play.server.provider.get(f"tasks/{task}/log", attempt=1)
    assert log.content == b"first"


@pytest.mark.parametrize("who", ["provider", "operator", "worker", "admin"])
def test_the_record_of_an_attempt_is_read_only(play: Play, who: str):
    player, task, item = held(play)
    api: Api = play.server.account(who, name=uuid.uuid4().hex)
    address = f"attempts/{item['attempt_id']}"
    before = play.attempts(task)
    assert api.patch(address, {"exit_status": "success"}).status_code == 405
    assert api.delete(address).status_code == 405
    assert api.request("PUT", address, {}).status_code == 405
    assert api.post("attempts", {"task": task}).status_code == 405
    assert api.delete("attempts").status_code == 405
    assert play.attempts(task) == before
    assert player.end(item).status_code == 200


# --- Tokens --------------------------------------------------------------------------------

Write = Callable[[Api, str, dict[str, Any]], Any]
END = {"exit_status": "success", "time_terminated": now()}


def _data(**more: Any) -> Write:
    def write(api: Api, task: str, token: dict[str, Any]) -> Any:
        return api.post(f"tasks/{task}/update_execution_data", {**token, **more})

    return write


def _fields(data: dict[str, Any], **fields: Any) -> Write:
    def write(api: Api, task: str, token: dict[str, Any]) -> Any:
        return api.patch(f"tasks/{task}", {**fields, "update_execution_data": {**token, **data}})

    return write


def _bulk(api: Api, task: str, token: dict[str, Any]) -> Any:
    data = {"state": "terminated", "update_execution_data": {**token, **END}}
    answer = api.patch("tasks", [{"_id": task, **data}])
    assert answer.status_code == 207
    (item,) = answer.json()["_items"]
    answer.status_code = item["_error"]["code"]
    answer.json = lambda: item
    return answer


def _virtual(name: str, value: Any) -> Write:
    def write(api: Api, task: str, token: dict[str, Any]) -> Any:
        header = {"Banyan-Attempt-Token": token["token"]} if token else {}
        return api.patch(f"tasks/{task}/{name}", value, headers=header)

    return write


WRITES: dict[str, Write] = {
    "end": _fields(END, state="terminated"),
    "end in bulk": _bulk,
    "start": _data(time_started=now()),
    "output": _data(log=[chunk(0, b"stale")]),
    "memory": _data(memory_usage=[{"time": now(), "resident_memory_bytes": 1}]),
    "nothing": _data(),
    "progress": _fields({}, progress={"done": 99}),
    "result": _fields({}, result="stale"),
    "messages, virtual": _virtual("messages", [{"text": "stale"}]),
    "progress, virtual": _virtual("progress", {"done": 99}),
    "release": lambda api, task, token: api.post(f"tasks/{task}/release", token),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_write_about_an_attempt_needs_its_token(play: Play, write: str):
    player, task, item = held(play, max_attempt_count=2)
    player.end(item, "failure (1)")
    (again,) = player.claim(1)
    _, _, others = held(Play(play.server))
    before = play.task(task), play.attempts(task)
    tried = WRITES[write]
    assert word(tried(player.api, task, {})) == (401, "token_missing")
    for wrong in (item["token"], others["token"], "garbage", again["token"][:-1] + "x"):
        answer = tried(player.api, task, {"token": wrong})
        assert word(answer) == (409, "lease_lost")
        assert answer.json()["state"] == "running"
    other = play.server.account("worker", name=uuid.uuid4().hex)
    assert word(tried(other, task, {"token": again["token"]})) == (403, "forbidden")
    assert (play.task(task), play.attempts(task)) == before
    assert play.server.provider.get(f"tasks/{task}/log").content == b""
    assert player.end(again).status_code == 200


def test_a_provider_does_not_write_about_an_attempt_even_with_its_token(play: Play):
    player, task, item = held(play)
    before = play.attempts(task)
    for write in WRITES.values():
        if write is not _bulk:
            answer = write(play.server.provider, task, {"token": item["token"]})
            assert word(answer) == (403, "forbidden")
    assert play.attempts(task) == before
    assert player.end(item).status_code == 200


# --- Progress, result ----------------------------------------------------------------------


def test_the_worker_that_holds_the_attempt_writes_progress_and_result(play: Play):
    player, task, item = held(play)
    header = {"Banyan-Attempt-Token": item["token"]}
    progress = {"done": 1, "total": 2, "message": "half way"}
    assert player.api.patch(f"tasks/{task}/progress", progress, headers=header).ok
    assert WRITES["result"](player.api, task, {"token": item["token"]}).ok
    assert play.server.provider.get(f"tasks/{task}/progress").json() == {"progress": progress}
    assert play.task(task)["result"] == "stale"
    refused = play.server.provider.patch(f"tasks/{task}/progress", progress)
    assert refused.status_code == 403


@pytest.mark.parametrize(
    "field",
    [
        {"progress": "half way"},
        {"progress": {"done": -1}},
        {"progress": {"unknown": 1}},
        {"state": "nonsense"},
        {"state": 5},
        {"state": ["terminated"]},
    ],
)
def test_what_a_worker_writes_is_validated(play: Play, field: dict[str, Any]):
    player, task, item = held(play)
    before = play.task(task)
    answer = player.api.patch(
        f"tasks/{task}", {**field, "update_execution_data": {"token": item["token"], **END}}
    )
    assert answer.status_code == 422
    assert play.task(task) == before


# --- The end -------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["exit_status", "time_terminated"])
def test_an_end_needs_exit_status_and_time_terminated(play: Play, missing: str):
    player, task, item = held(play)
    data = {name: value for name, value in END.items() if name != missing}
    answer = player.report(item, "terminated", **data)
    assert word(answer) == (422, "invalid")
    assert missing in answer.json()["_issues"]["update_execution_data"]
    assert play.task(task)["state"] == "running"


@pytest.mark.parametrize(
    "data",
    [
        {"exit_status": "done"},
        {"exit_status": "failure (0)"},
        {"exit_status": "failure (1)\n"},
        {"exit_status": 0},
        {"time_terminated": "yesterday"},
        {"time_terminated": 5},
        {"unknown": 1},
    ],
)
def test_an_end_that_makes_no_sense_is_refused(play: Play, data: dict[str, Any]):
    player, task, item = held(play)
    assert word(player.report(item, "terminated", **{**END, **data})) == (422, "invalid")
    assert play.task(task)["state"] == "running"


@pytest.mark.parametrize("state", ["inactive", "available", "pending_cancellation", "cancelled"])
def test_a_worker_ends_a_running_task_in_no_other_state(play: Play, state: str):
    player, task, item = held(play)
    assert player.end(item, state=state).status_code == 422
    assert play.task(task)["state"] == "running"


def test_repeating_an_end_answers_with_what_is_stored(play: Play):
    player, task, item = held(play)
    player.end(item)
    before = play.task(task), play.attempts(task)
    again = player.report(
        item, "terminated", exit_status="failure (1)", time_terminated="2030-01-01T00:00:00Z"
    )
    assert again.status_code == 200
    assert (again.json()["state"], again.json()["outcome"]) == ("terminated", "success")
    assert (play.task(task), play.attempts(task)) == before


def test_repeating_a_failed_end_with_attempts_left_changes_nothing(play: Play):
    player, _, item = held(play, max_attempt_count=2)
    assert player.end(item, "failure (1)").json()["state"] == "available"
    again = player.end(item, "failure (1)")
    assert (again.status_code, again.json()["state"]) == (200, "available")
    (item,) = player.claim(1)  # it counted once
    assert player.end(item, "failure (1)").json()["state"] == "terminated"


def test_after_its_end_an_attempt_takes_nothing_more(play: Play):
    player, task, item = held(play)
    player.report(item, log=[chunk(0, b"said")])
    player.end(item)
    before = play.attempts(task)
    assert word(player.report(item, messages=[{"text": "late"}])) == (409, "lease_lost")
    assert word(player.report(item, log=[chunk(4, b"rest")])) == (409, "lease_lost")
    end = {"exit_status": "success", "time_terminated": now()}
    for late in ([chunk(4, b"rest")], [chunk(4, b"x" * 9000)]):
        assert player.report(item, "terminated", log=late, **end).status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log").content == b"said"
    assert play.attempts(task) == before


@pytest.mark.parametrize(
    ("exit_status", "state", "outcome"),
    [
        ("cancelled", "cancelled", None),
        ("cancelled", "terminated", None),
        ("success", "terminated", "success"),
        ("failure (1)", "terminated", "failure"),
        ("success", "cancelled", None),
    ],
)
def test_a_task_that_is_being_cancelled_never_runs_again_however_it_ends(
    play: Play, exit_status: str, state: str, outcome: str | None
):
    player, task, item = held(play, max_attempt_count=5)
    play.server.provider.post(f"tasks/{task}/cancel")
    answer = player.end(item, exit_status, state)
    assert answer.status_code == 200
    assert answer.json()["state"] == ("cancelled" if exit_status == "cancelled" else state)
    assert answer.json()["outcome"] == outcome
    assert player.claim(1) == []


def test_an_attempt_that_its_worker_gives_up_counts_as_lost(play: Play):
    player, task, item = held(play)
    assert player.end(item, "lost").json()["state"] == "available"
    (attempt,) = play.attempts(task)
    assert attempt["exit_status"] == "lost"


# --- Many at once, and release -------------------------------------------------------------


def test_many_reports_in_one_request_stand_each_for_itself(play: Play):
    play.submit(3)
    player = play.player()
    items = player.claim(3)
    reports = [
        {"_id": i["_id"], "state": "terminated",
         "update_execution_data": {"token": i["token"], **END}}
        for i in items
    ]  # fmt: skip
    reports[1]["update_execution_data"] = {"token": items[0]["token"], **END}
    answer = player.api.patch("tasks", reports)
    assert answer.status_code == 207
    told = answer.json()["_items"]
    assert [one["_status"] for one in told] == ["OK", "ERR", "OK"]
    assert told[1]["_error"]["word"] == "lease_lost"
    assert [one["_id"] for one in told] == [item["_id"] for item in items]
    reports[1]["update_execution_data"] = {"token": items[1]["token"], **END}
    assert player.api.patch("tasks", reports).status_code == 200
    assert {play.task(item["_id"])["outcome"] for item in items} == {"success"}


def test_a_released_task_is_available_at_once_and_nobody_is_to_blame(play: Play):
    tasks = play.submit(3, max_lost_count=0)
    player = play.player()
    items = player.claim(3)
    one = player.api.post(f"tasks/{tasks[0]}/release", {"token": items[0]["token"]})
    assert (one.status_code, one.json()["state"]) == (200, "available")
    tokens = [item["token"] for item in items[1:]]
    assert player.api.post("tasks/release", {"tokens": tokens}).status_code == 200
    assert [play.task(task)["state"] for task in tasks] == ["available"] * 3
    assert word(player.end(items[1])) == (409, "lease_lost")
    assert len(play.player().claim(3)) == 3


def test_a_worker_of_another_account_can_release_nothing(play: Play):
    _, task, item = held(play)
    other = play.server.account("worker", name=uuid.uuid4().hex)
    other.post("tasks/release", {"tokens": [item["token"]]})
    assert play.task(task)["state"] == "running"
