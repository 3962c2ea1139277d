"""What a running task may do with its own token, and so its worker, which holds that too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from banyan.errors import EXIT_USAGE
from banyan.server import auth
from banyan.server.store.indexes import prepare_database
from banyan.server.store.mongo import Store
from tests.contract.playing import Player, now, word
from tests.harness import Api, Processes, Server
from tests.server.explained import Bench

FORBIDDEN = (403, "forbidden")
EXCEEDED = (403, "quota_exceeded")
OWN = {"queue": "rights", "labels": {"site": "b"}, "priority": 5}


class Holding:
    """A worker account that holds a running task, and its token."""

    def __init__(self, server: Server, **fields: Any) -> None:
        task = {"command": "x", "state": "available", **OWN, **fields}
        self.server = server
        self.id: str = server.provider.post("tasks", task).json()["_id"]
        self.player = Player(server.worker, task["queue"], labels=task["labels"])
        self.claim()

    def claim(self) -> None:
        answer = self.player.claim_one(self.id)
        assert answer.status_code == 200, answer.text
        self.item = answer.json()
        self.api = Api(self.server.url, self.item["token"])

    def submit(self, *tasks: Any) -> Any:
        return self.api.post("tasks", tasks[0] if len(tasks) == 1 else list(tasks))

    def submitted(self, *tasks: Any) -> Any:
        answer = self.submit(*tasks)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def end(self, **more: Any) -> None:
        data = {"token": self.item["token"], "exit_status": "success", "time_terminated": now()}
        body = {"state": "terminated", "update_execution_data": {**data, **more}}
        assert self.server.worker.patch(f"tasks/{self.id}", body).status_code == 200

    def stored(self) -> int:
        """How many tasks it has submitted."""
        where = f'{{"submitted_by":"{self.id}"}}'
        answer = self.server.provider.get("tasks", where=where, max_results=1000)
        return len(answer.json()["_items"])


@pytest.fixture
def holding(server: Server) -> Holding:
    return Holding(server)


def test_what_is_left_out_is_handed_down(server: Server, holding: Holding) -> None:
    made = holding.submitted({"command": "y"})
    task = server.provider.get(f"tasks/{made['_id']}").json()
    assert {name: task[name] for name in OWN} == OWN
    assert (task["submitted_by"], task["submission_depth"]) == (holding.id, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", "root-on-every-machine"),
        ("queue", "default"),
        ("labels", {}),
        ("labels", {"site": "a"}),
        ("labels", {"gpu": "yes"}),
        ("priority", 6),
        ("priority", "high"),
        ("env", {"X": {"secret": "prod_db"}}),
    ],
)
def test_no_task_is_sent_beyond_where_its_submitter_might_have_run(
    holding: Holding, name: str, value: Any
) -> None:
    answer = holding.submit({"command": "id", name: value})
    assert word(answer) == FORBIDDEN
    assert list(answer.json()["_issues"]) == [name]
    answer = holding.submit({"command": "id"}, {"command": "id", name: value})
    assert word(answer) == FORBIDDEN
    assert {index: list(found) for index, found in answer.json()["_issues"].items()} == {
        "1": [name]
    }
    assert holding.stored() == 0


def test_what_it_has_itself_it_hands_on(server: Server) -> None:
    env = {"A": {"secret": "prod_db"}, "B": "plain"}
    holding = Holding(server, env=env)
    allowed = {
        "queue": OWN["queue"],
        "labels": {"site": "b", "gpu": "yes"},  # fewer workers, and no other ones
        "priority": -3,
        "env": {"OTHER": {"secret": "prod_db"}},
    }
    holding.submitted({"command": "y", **allowed})
    answer = holding.submit({"command": "y", "env": {"A": {"secret": "another"}}})
    assert word(answer) == FORBIDDEN
    assert "another" in str(answer.json()["_issues"]["env"])


def test_the_bounds_hold_for_what_its_tasks_submit_in_turn(server: Server) -> None:
    first = Holding(server)
    made = first.submitted({"command": "y", "state": "available"})["_id"]
    second = object.__new__(Holding)
    second.server, second.id, second.player = server, made, first.player
    second.claim()
    assert word(second.submit({"command": "z", "queue": "default"})) == FORBIDDEN
    third = second.submitted({"command": "z"})["_id"]
    assert server.provider.get(f"tasks/{third}").json()["submission_depth"] == 2


def test_its_token_submits_nothing_from_the_end_of_its_attempt_on(holding: Holding) -> None:
    """The server remembers a token for a second, and asks the task all the same."""
    holding.submitted({"name": "in time"})
    holding.end()
    assert word(holding.submit({"name": "late"})) == (401, "unauthenticated")
    assert holding.stored() == 1


def test_an_earlier_attempts_token_is_not_that_of_the_next(server: Server) -> None:
    holding = Holding(server, max_attempt_count=2)
    earlier = holding.api
    holding.submitted({"name": "first"})  # from here on it is remembered for a second
    holding.end(exit_status="failure (1)")
    holding.claim()
    assert holding.submit({"name": "mine"}).status_code == 201
    assert word(earlier.post("tasks", {"name": "not mine"})) == (401, "unauthenticated")


def test_what_it_changes_of_another_tells_nothing_of_that(server: Server, holding: Holding) -> None:
    """Its worker has its token, and may not read the other."""
    fields = {"name": "child", "after": [holding.id], "queue": "elsewhere", "env": {"A": "b"}}
    child = server.provider.post("tasks", fields).json()["_id"]
    assert word(holding.api.get(f"tasks/{child}")) == (404, "not_found")
    for values in ([], [holding.submitted({"name": "further"})["_id"]]):
        answer = holding.api.post(f"tasks/{child}/add_continuations", values)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"_id", "_etag", "state", "_status"}


@pytest.mark.parametrize("queue", ["elsewhere", OWN["queue"]])
@pytest.mark.parametrize("how", ["after_any", "add_continuations"])
def test_what_it_submits_reads_only_what_might_run_where_it_does(
    server: Server, queue: str, how: str
) -> None:
    """Else its worker would read there the output of a queue that it may not serve."""
    holding = Holding(server)
    fields = {"command": "x", "after": [holding.id], "queue": queue, "labels": OWN["labels"]}
    parent = server.provider.post("tasks", fields).json()["_id"]
    if how == "after_any":
        reads = holding.submitted({"command": "x", "after_any": [parent], "state": "available"})
    else:
        reads = holding.submitted({"command": "x"})
        tied = holding.api.post(f"tasks/{parent}/add_continuations", [reads["_id"]])
        assert tied.status_code == 200, tied.text
        server.provider.patch(f"tasks/{reads['_id']}", {"state": "available"})
    holding.end()
    elsewhere = Player(server.worker, queue, labels=OWN["labels"])
    assert elsewhere.end(elsewhere.claim_one(parent).json()).status_code == 200
    reading = Api(server.url, holding.player.claim_one(reads["_id"]).json()["token"])
    status = 200 if queue == OWN["queue"] else 404
    for path in ("", "/log", "/result"):
        assert reading.get(f"tasks/{parent}{path}").status_code == status


def test_it_lets_no_task_of_the_account_read_another(server: Server, holding: Holding) -> None:
    one, other = (
        server.provider.post("tasks", {"name": name, "after": [holding.id]}).json()["_id"]
        for name in ("one", "other")
    )
    refused = holding.api.post(f"tasks/{one}/add_continuations", [other])
    assert word(refused) == (422, "invalid")
    assert server.provider.get(f"tasks/{other}").json()["after"] == [holding.id]
    assert server.provider.post(f"tasks/{one}/add_continuations", [other]).status_code == 200


def test_its_owners_other_tasks_are_out_of_its_reach(server: Server, holding: Holding) -> None:
    other = server.provider.post("tasks", {"name": "other"}).json()["_id"]
    for name in ("after", "continuations", "final_continuations"):
        assert word(holding.submit({"name": "x", name: [other]})) == (422, "invalid")
    mine = holding.submitted({"name": "mine"})["_id"]
    entry = {"targets": [mine], "values": [other]}
    assert word(holding.api.post("tasks/add_continuations", [entry])) == (422, "invalid")
    assert server.provider.get(f"tasks/{other}").json()["after"] == []


@pytest.mark.parametrize("name", ["current_attempt", "worker", "exit_status", "memory_usage"])
def test_it_reads_by_a_projection_no_more_than_by_the_address(holding: Holding, name: str) -> None:
    assert word(holding.api.get(f"tasks/{holding.id}/{name}")) == FORBIDDEN
    asked = holding.api.get(f"tasks/{holding.id}", projection=f'{{"{name}":1}}')
    assert word(asked) == (400, "bad_request")
    allowed = holding.api.get(f"tasks/{holding.id}", projection='{"progress":1,"result":1}')
    assert allowed.status_code == 200


def test_who_may_read_the_task_sees_who_submitted_it(server: Server, holding: Holding) -> None:
    made = holding.submitted({"name": "child"})["_id"]
    where = f'{{"submitted_by":"{holding.id}"}}'
    found = server.provider.get("tasks", where=where).json()["_items"]
    assert [one["_id"] for one in found] == [made]
    assert server.provider.get(f"tasks/{holding.id}").json()["submission_count"] == 1
    wrong = server.provider.post("tasks", {"name": "x", "submitted_by": holding.id})
    assert word(wrong) == (422, "invalid")


def test_an_account_is_bound_by_none_of_this(server: Server) -> None:
    task = {"command": "y", "queue": "q", "labels": {"a": "b"}, "priority": 9}
    task["env"] = {"X": {"secret": "prod_db"}}
    made = server.provider.post("tasks", task)
    assert made.status_code == 201
    assert "submitted_by" not in made.json()


# --- The knobs -------------------------------------------------------------------------------


def test_one_attempt_submits_so_many_and_no_more(serve: Callable[..., Server]) -> None:
    holding = Holding(serve(TASK_SUBMISSIONS_MAX=3))
    holding.submitted({"name": "1"}, {"name": "2"})
    refused = holding.submit({"name": "3"}, {"name": "4"})
    assert word(refused) == EXCEEDED
    told = {name: refused.json()[name] for name in ("limit", "value", "used", "asked")}
    assert told == {"limit": "task_submissions", "value": 3, "used": 2, "asked": 2}
    last = {"_id": str(ObjectId()), "name": "3"}
    holding.submitted(last)
    assert word(holding.submit(last)) == (409, "already_exists")  # as it was told before
    assert word(holding.submit({"name": "4"})) == EXCEEDED
    assert word(holding.submit(*[{"name": "x"}] * 4)) == EXCEEDED
    assert holding.stored() == 3


def test_a_task_that_submits_itself_comes_to_an_end(serve: Callable[..., Server]) -> None:
    holding = Holding(serve(TASK_DEPTH_MAX=2))
    for _ in range(2):
        holding.id = holding.submitted({"command": "again", "state": "available"})["_id"]
        holding.claim()
    refused = holding.submit({"command": "again"})
    assert word(refused) == EXCEEDED
    assert refused.json()["limit"] == "task_depth"


def test_it_may_be_switched_off(serve: Callable[..., Server]) -> None:
    server = serve(TASK_SUBMISSIONS="off")
    holding = Holding(server)
    child = server.provider.post("tasks", {"name": "child", "after": [holding.id]}).json()["_id"]
    other = server.provider.post("tasks", {"name": "other", "after": [holding.id]}).json()["_id"]
    assert word(holding.submit({"command": "y"})) == FORBIDDEN
    for body in ([other], [{"targets": [child], "values": [other]}]):
        path = "tasks/add_continuations" if body != [other] else f"tasks/{child}/add_continuations"
        assert word(holding.api.post(path, body)) == FORBIDDEN
    assert holding.api.post(f"tasks/{holding.id}/result", 7).status_code == 200
    assert server.provider.post(f"tasks/{child}/add_continuations", [other]).status_code == 200


def test_a_word_that_is_none_of_the_three_stops_the_start(
    processes: Processes, tmp_path: Path, fresh_database: str
) -> None:
    environment = {"BANYAN_MONGO_URI": fresh_database, "BANYAN_TASK_SUBMISSIONS": "of"}
    arguments = ["server", "--data", str(tmp_path / "data"), "--port", "0"]
    started = processes.banyan(*arguments, environment=environment)
    assert started.wait(60) == EXIT_USAGE


def test_any_lets_it_choose_where_but_names_no_secret_for_it(serve: Callable[..., Server]) -> None:
    holding = Holding(serve(TASK_SUBMISSIONS="any"))
    holding.submitted({"command": "y", "queue": "other", "labels": {}, "priority": 99})
    assert word(holding.submit({"env": {"X": {"secret": "prod_db"}}})) == FORBIDDEN


# --- What it costs -----------------------------------------------------------------------------


def test_only_tasks_pay_for_their_bounds(
    fresh_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHE_SECONDS", 1000)
    prepare_database(fresh_database)
    bench = Bench(fresh_database)
    bench.submit(1)
    sent = bench.during(lambda: bench.submit(1))
    assert [next(iter(one)) for one in sent] == ["insert"]
    (item,) = bench.claim(bench.worker(), 1)
    bench.tokens["task"] = item["token"]
    bench.ask("task", "POST", "/tasks", {"command": "y"})
    sent = bench.during(lambda: bench.ask("task", "POST", "/tasks", {"command": "y"}))
    assert [next(iter(one)) for one in sent] == ["find", "update", "insert"]
    store = Store(fresh_database)
    assert store["tasks"].count_documents({"submission_depth": 1}) == 2
    store.close()
    bench.store.close()
