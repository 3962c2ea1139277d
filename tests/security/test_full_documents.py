"""Tasks whose documents are full to the last byte: nobody else is harmed, and they can be ended.

Our own bounds keep every document far from MongoDB's 16 MiB. Here it is filled behind their back.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from banyan.server.app import create_app
from banyan.server.calls import Context, Silent
from banyan.server.embedded import PrivateMongo
from banyan.server.rota import Rota
from banyan.server.settle import settle_rest
from banyan.server.store import accounts, sizes, tasks
from banyan.server.store.indexes import prepare_database
from banyan.server.verbs.release import give_back
from tests.harness import Processes, eventually, start_server
from tests.worker.crew import Crew

Item = dict[str, Any]
LIMIT = 16 * 1024 * 1024
NOW = "2026-11-22T06:51:14.123Z"
ENDED = ("terminated", "cancelled")


@pytest.fixture(scope="module")
def roomy(own_surroundings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MongoDB whose cache takes documents of 16 MiB; the usual one's refuses them."""
    mongo = PrivateMongo(tmp_path_factory.mktemp("roomy"), cache_gigabytes=1)
    mongo.start()
    yield mongo.uri
    mongo.stop()


class Play:
    """An application, asked in this process; a worker and a provider of its own."""

    def __init__(self, uri: str) -> None:
        prepare_database(uri)
        app = create_app(uri)
        self.store = app.extensions["banyan"].context.store
        self.context = Context(self.store, Silent())
        self._client = app.test_client()
        self._tokens = {
            role: accounts.issue(self.store, accounts.insert(self.store, role, [role]))
            for role in ("provider", "worker")
        }
        self.worker = self.register()

    def register(self) -> str:
        body = {"host": "h", "resources": {"cores": 64, "memory": "64 GiB"}}
        return str(self.ask("worker", "POST", "/workers", body)["_id"])

    def answer(self, role: str, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._tokens[role]}"}
        answer = self._client.open(path, method=method, headers=headers, json=body)
        assert answer.status_code != 500, answer.text
        return answer

    def ask(self, role: str, method: str, path: str, body: Any = None) -> Any:
        answer = self.answer(role, method, path, body)
        assert answer.status_code < 300, answer.text
        return answer.json

    def submit(self, count: int = 1, **fields: Any) -> list[str]:
        task = {"command": "true", "state": "available", **fields}
        answer = self.ask("provider", "POST", "/tasks", [task] * count)
        return [item["_id"] for item in answer["_items"]]

    def claim(self, most: int, worker: str = "") -> list[Item]:
        body = {"worker": worker or self.worker, "max": most}
        items: list[Item] = self.ask("worker", "POST", "/tasks/claim", body)["_items"]
        return items

    def fill(self, task: str, field: str) -> None:
        """One byte more, and MongoDB refuses it."""
        start: Item = {"result": "", "tags": {"x": ""}}
        self.store["tasks"].update_one({"_id": ObjectId(task)}, {"$set": {field: start[field]}})
        room = LIMIT - self.size(task) - 1
        value = "x" * room if field == "result" else {"x": "x" * room}
        self.store["tasks"].update_one({"_id": ObjectId(task)}, {"$set": {field: value}})
        assert self.size(task) == LIMIT - 1

    def size(self, task: str) -> int:
        match = {"$match": {"_id": ObjectId(task)}}
        (found,) = self.store["tasks"].aggregate(
            [match, {"$project": {"size": {"$bsonSize": "$$ROOT"}}}]
        )
        return int(found["size"])

    def states(self, *ids: str) -> list[str]:
        found = tasks.states(self.store, [ObjectId(one) for one in ids])
        return [found[ObjectId(one)] for one in ids]

    def held(self, field: str, count: int = 4, **fields: Any) -> list[Item]:
        """Tasks that the worker runs, the first of which is full."""
        self.submit(count, **fields)
        items = self.claim(count)
        assert len(items) == count
        self.fill(items[0]["_id"], field)
        return items

    def end(self, items: list[Item], **more: Any) -> Any:
        """The answer to the ends of all of them in one request."""
        return self.answer("worker", "PATCH", "/tasks", [ending(item, **more) for item in items])

    def forget(self, *ids: str) -> None:
        self.ask("provider", "POST", "/tasks/forget", {"targets": list(ids)})


def ending(item: Item, exit_status: str = "success", **more: Any) -> Item:
    data = {"token": item["token"], "exit_status": exit_status, "time_terminated": NOW}
    return {"_id": item["_id"], "state": "terminated", "update_execution_data": data, **more}


@pytest.fixture(scope="module")
def shared(roomy: str) -> Play:
    return Play(roomy.replace("/?", "/play?") if "/?" in roomy else f"{roomy}/play")


@pytest.fixture
def play(shared: Play) -> Iterator[Play]:
    yield shared
    shared.store["tasks"].delete_many({})


@pytest.fixture(params=["result", "tags"])
def field(request: pytest.FixtureRequest) -> str:
    """What of the task fills its document."""
    return str(request.param)


@pytest.mark.parametrize("most", [1, 2, 6])
def test_claims_pass_over_a_full_task(play: Play, field: str, most: int):
    (full,) = play.submit(priority=1_000_000_000)
    others = play.submit(5)
    play.fill(full, field)
    claimed: list[str] = []
    for _ in range(12):
        claimed += [item["_id"] for item in play.claim(most)]
    assert set(others) <= set(claimed)
    # An old result makes room for the next attempt; where nothing can, nobody tries for ever.
    assert play.states(full) == (["running"] if field == "result" else ["cancelled"])
    assert len(claimed) == len(set(claimed))


def test_a_full_task_is_claimed_by_name(play: Play, field: str):
    (full,) = play.submit()
    play.fill(full, field)
    path = f"/tasks/{full}/claim"
    answer = play.answer("worker", "POST", path, {"worker": play.worker})
    assert answer.status_code == (200 if field == "result" else 409)
    assert play.states(full)[0] in ("running", "cancelled")


def test_a_start_of_a_full_task_harms_no_other(play: Play, field: str):
    items = play.held(field)
    bodies = [
        {"_id": i["_id"], "update_execution_data": {"token": i["token"], "time_started": NOW}}
        for i in items
    ]
    told = play.answer("worker", "PATCH", "/tasks", bodies).json["_items"]
    assert [one["_status"] for one in told[1:]] == ["OK"] * 3
    assert told[0]["_error"]["word"] == "too_large"
    assert play.end(items).status_code == 200


@pytest.mark.parametrize("exit_status", ["success", "failure (1)", "lost"])
@pytest.mark.parametrize("attempts", [1, 5])
def test_a_full_task_ends_with_the_others(play: Play, field: str, exit_status: str, attempts: int):
    items = play.held(field, max_attempt_count=attempts)
    answer = play.end(items, exit_status=exit_status)
    assert answer.status_code == 200, answer.text
    assert "running" not in play.states(*(item["_id"] for item in items))
    assert play.end(items, exit_status=exit_status).json["_items"]


def test_progress_with_the_end_of_a_full_task(play: Play, field: str):
    """As in the finding: a line of progress, and nothing else of that worker got through."""
    items = play.held(field, 21)
    progress = {"done": 1, "total": 2, "message": "\N{PILE OF POO}" * 256}
    answer = play.end(items, progress=progress)
    assert answer.status_code == 200, answer.text
    assert set(play.states(*(item["_id"] for item in items))) == {"terminated"}


def test_progress_and_result_of_a_full_task_are_refused(play: Play, field: str):
    item = play.held(field)[0]
    data = {"token": item["token"]}
    for more in ({"progress": {"done": 1, "message": "x" * 256}}, {"result": "x" * 1000}):
        body = {"update_execution_data": data, **more}
        answer = play.answer("worker", "PATCH", f"/tasks/{item['_id']}", body)
        if not ("result" in more and field == "result"):
            assert (answer.status_code, answer.json["_error"]["word"]) == (413, "too_large")


def test_a_lost_worker_s_tasks_are_all_given_back(play: Play, field: str):
    items = play.held(field)
    held = tasks.held(play.store, {"holder.worker": ObjectId(play.worker)})
    assert give_back(play.context, held, "its worker was lost", lost=True) == 4
    assert play.states(*(item["_id"] for item in items)) == ["available"] * 4


def test_a_full_task_is_released_with_the_others(play: Play, field: str):
    items = play.held(field)
    tokens = [item["token"] for item in items]
    play.ask("worker", "POST", "/tasks/release", {"tokens": tokens, "reason": "r" * 256})
    assert play.states(*(item["_id"] for item in items)) == ["available"] * 4


def test_a_full_task_does_not_keep_others_from_being_stolen(play: Play, field: str):
    items = play.held(field)
    thief = play.register()
    stolen: list[str] = []
    for _ in range(4):
        body = {"worker": thief, "max": 8, "claim_id": "c" * 128}
        body["claim_id"] = str(ObjectId())
        stolen += [
            item["_id"] for item in play.ask("worker", "POST", "/tasks/steal", body)["_items"]
        ]
    assert {item["_id"] for item in items[1:]} <= set(stolen) | {items[1]["_id"]}
    assert len(stolen) >= 2


@pytest.mark.parametrize("state", ["available", "running", "inactive"])
def test_a_full_task_is_cancelled_with_the_others(play: Play, field: str, state: str):
    if state == "running":
        ids = [item["_id"] for item in play.held(field)]
    else:
        ids = play.submit(4, state=state)
        play.fill(ids[0], field)
    play.ask("provider", "POST", "/tasks/cancel", {"targets": ids})
    wanted = "pending_cancellation" if state == "running" else "cancelled"
    assert play.states(*ids) == [wanted] * 4
    if state != "running":
        play.forget(*ids)


def test_a_retry_of_a_full_task_is_refused_and_it_may_be_forgotten(play: Play, field: str):
    ids = play.submit(2)
    play.ask("provider", "POST", "/tasks/cancel", {"targets": ids})
    play.fill(ids[0], field)
    answer = play.answer("provider", "POST", f"/tasks/{ids[0]}/retry")
    assert (answer.status_code, answer.json["_error"]["word"]) == (413, "too_large")
    play.ask("provider", "POST", f"/tasks/{ids[1]}/retry")
    play.forget(ids[0])


@pytest.mark.parametrize("exit_status", ["success", "failure (1)"])
def test_a_full_child_does_not_hold_up_its_siblings(play: Play, field: str, exit_status: str):
    (parent,) = play.submit()
    children = play.submit(4, state="inactive", after=[parent])
    play.fill(children[1], field)
    (item,) = play.claim(1)
    assert play.end([item], exit_status=exit_status).status_code == 200
    list(settle_rest(play.store, Rota()))
    first, full, *others = play.states(*children)
    if exit_status == "success":
        assert [first, *others] == ["available"] * 3
        assert full == ("available" if field == "result" else "cancelled")
    else:
        assert [first, full, *others] == ["cancelled"] * 4
    assert not play.store["tasks"].find_one({"unsettled": True, "_id": ObjectId(parent)})


def test_tags_that_have_no_room_are_refused_and_others_are_set(play: Play, field: str):
    ids = play.submit(3)
    play.fill(ids[0], field)
    more = {"a": "x" * 256, "b": "x" * 256}
    bodies = [
        {"_id": one, "tags": {**more, "x": "y" * (256 if field == "result" else 0)}} for one in ids
    ]
    if field == "tags":  # of the same size as those that are there, and one more
        bodies[0] = {"_id": ids[0], "cwd": "/" * 4096}
        play.store["tasks"].update_one({"_id": ObjectId(ids[0])}, {"$set": {"state": "inactive"}})
    told = play.answer("provider", "PATCH", "/tasks", bodies).json["_items"]
    assert told[0]["_error"]["word"] == "too_large"
    assert [one["_status"] for one in told[1:]] == ["OK"] * 2


def test_an_attempt_s_record_that_is_full_is_ended_with_the_others(play: Play):
    play.submit(3)
    items = play.claim(3)
    record = ObjectId(items[1]["attempt_id"])
    message = {"text": "x" * (LIMIT - 2000)}
    play.store["attempts"].update_one({"_id": record}, {"$set": {"messages": [message]}})
    (found,) = play.store["attempts"].aggregate(
        [{"$match": {"_id": record}}, {"$project": {"size": {"$bsonSize": "$$ROOT"}}}]
    )
    message["text"] += "x" * (LIMIT - 1 - found["size"])
    play.store["attempts"].update_one({"_id": record}, {"$set": {"messages": [message]}})
    assert play.end(items).status_code == 200
    ends = play.store["attempts"].find({"_id": {"$in": [ObjectId(i["attempt_id"]) for i in items]}})
    assert [one["exit_status"] for one in ends] == ["success"] * 3


def test_sizes_are_told_apart_from_other_troubles():
    assert not sizes.is_too_large(ValueError())
    assert sizes.bytes_of("x" * 100) in range(100, 120)


# --- A real server and real workers ---------------------------------------------------------


@pytest.fixture
def crew(processes: Processes, roomy: str, tmp_path: Path) -> Iterator[Crew]:
    uri = roomy.replace("/?", "/crew?") if "/?" in roomy else f"{roomy}/crew"
    server = start_server(processes, tmp_path / "data", uri)
    own = Crew(processes, server, tmp_path)
    yield own
    own.dismiss()


def test_one_poisoned_task_and_twenty_others_end(
    crew: Crew, roomy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """It has filled its document, and says more while the others end."""
    caplog.set_level(logging.WARNING)
    uri = roomy.replace("/?", "/crew?") if "/?" in roomy else f"{roomy}/crew"
    play = object.__new__(Play)
    play.store = create_app(uri).extensions["banyan"].context.store
    crew.worker("one", "--cores", "4", "--memory", "4 GiB")
    crew.registered()
    go = tmp_path / "go"
    message = "\N{PILE OF POO}" * 256
    poison = crew.submit(f"echo ready; while ! test -e {go}; do sleep 0.05; done; "
                         f"echo '::progress 1/2 {message}'")  # fmt: skip
    crew.says(poison, b"ready")
    play.fill(poison, "result")
    go.write_text("")
    others = [crew.submit("true") for _ in range(20)]
    for task in others:
        assert crew.ended(task, seconds=60)["outcome"] == "success"
    assert crew.ended(poison, seconds=60)["outcome"] == "success"
    assert crew.statuses(poison) == ["success"]
    assert [crew.statuses(task) for task in others] == [["success"]] * 20


def test_a_task_that_fills_its_own_document_is_told_to_stop(crew: Crew):
    """With the token of its own attempt: every size up to the limit of a body."""
    crew.worker("one", "--cores", "2", "--memory", "2 GiB")
    code = (
        "import json, os, urllib.request as r, urllib.error as e\n"
        "url = os.environ['BANYAN_URL'] + '/tasks/' + os.environ['BANYAN_TASK_ID'] + '/result'\n"
        "for size in (1000, 2**19, 2**20 + 1, 2**23, 2**24 - 1000):\n"
        "    sent = r.Request(url, json.dumps('x' * size).encode(), method='POST', headers={\n"
        "        'Authorization': 'Bearer ' + os.environ['BANYAN_TASK_TOKEN'],\n"
        "        'Content-Type': 'application/json'})\n"
        "    try:\n"
        "        print(r.urlopen(sent).status)\n"
        "    except e.HTTPError as error:\n"
        "        print(error.code, json.load(error)['_error']['word'])\n"
    )
    task = crew.submit(["python3", "-c", code])
    others = [crew.submit("true") for _ in range(20)]
    assert crew.ended(task, seconds=60)["outcome"] == "success", crew.log(task)
    said = crew.log(task).decode().split("\n")[:-1]
    assert said == ["200", "200", *["413 too_large"] * 3]
    assert len(crew.task(task)["result"]) == 2**19
    for other in others:
        assert crew.ended(other, seconds=60)["outcome"] == "success"
    query = json.dumps({"state": "running"})
    eventually(lambda: not crew.server.provider.get("tasks", where=query).json()["_items"])
