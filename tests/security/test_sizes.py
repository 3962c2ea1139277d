"""How large documents and answers may become: the largest that our bounds allow are built here."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import ObjectId
from pymongo import MongoClient

from banyan.addresses import HOST_LENGTH_MAX
from banyan.config import knobs
from banyan.domain import resources
from banyan.domain.continuations import CHILD_LISTS, PARENT_LISTS
from banyan.errors import BanyanError
from banyan.server import validation
from banyan.server.schemas import accounts, attempts, tasks, workers
from banyan.server.store import attempts as records
from banyan.server.store import edges, logs, pages, sizes
from banyan.server.store.workers import CLAIM_IDS_MAX
from banyan.server.verbs.graph import EDGES_MAX
from tests.contract.playing import Play, word
from tests.contract.playing import play as play
from tests.harness import Server

LIMIT = 16 * 1024 * 1024
ROOM = 1024 * 1024  # for what the server adds later: a holder, a reason, marks
WIDE = "\N{PILE OF POO}"  # four bytes a character, and no character has more
NOW = datetime.now(UTC)
IDS = [ObjectId(n.to_bytes(12, "big")) for n in range(sizes.RELATIVES_MAX)]


def names(count: int) -> list[str]:
    return [f"{n:_<64}" for n in range(count)]


def words() -> dict[str, str]:
    return dict.fromkeys(names(64), WIDE * 256)


def checked(schema: Any, document: dict[str, Any]) -> dict[str, Any]:
    """The document, which validation takes; one more of anything it would not."""
    found, issues = validation.check(schema, document)
    assert not issues
    return found


def largest_task() -> dict[str, Any]:
    """All that clients may say of a task, in the most bytes that it can take."""
    custom = dict.fromkeys(names(resources.CUSTOM_NAMES_MAX), 0.5)
    given = {
        "name": WIDE * 256,
        "command": [WIDE * tasks.COMMAND_CHARACTERS_MAX, *[""] * (tasks.COMMAND_WORDS_MAX - 1)],
        "requested_resources": {"custom": custom},
        "queue": "q" * 128,
        "labels": words(),
        "tags": words(),
        "env": {f"N{n:_<240}": "x" for n in range(1023)} | {"N0": WIDE * 3600},
        "cwd": WIDE * 4096,
        "dedupe_key": WIDE * 256,
    }
    progress = {"done": 1.5, "total": 1.5, "message": WIDE * 256}
    relatives = len(IDS) // 3 + 1
    thirds = [IDS[n * relatives : (n + 1) * relatives] for n in range(3)]
    return {
        **tasks.DEFAULTS,
        **checked(tasks.SCHEMA, given),
        "progress": progress,
        "result": "x" * (knobs().RESULT_BYTES_MAX - 13),
        **dict(zip(CHILD_LISTS, thirds, strict=True)),
        **dict(zip(PARENT_LISTS, thirds, strict=True)),
        "open_parents": IDS,
        "reason": WIDE * 1024,
        "holder": {"granted": {"custom": custom}, "claim_id": WIDE * 128, "account": "a" * 128},
    }


def test_the_largest_task_leaves_room_below_the_limit():
    assert len(bson.encode(largest_task())) < LIMIT - ROOM


def test_a_result_of_two_mebibytes_would_still_do():
    """As settings.py says."""
    task = {**largest_task(), "result": "x" * 2 * 1024 * 1024}
    assert len(bson.encode(task)) < LIMIT - ROOM // 4


def test_the_largest_record_of_an_attempt_leaves_room_below_the_limit():
    custom = dict.fromkeys(names(resources.CUSTOM_NAMES_MAX), 0.5)
    count = records.SAMPLES_MAX
    memory = {"time": NOW, "resident_memory_bytes": 2**53, "virtual_memory_bytes": 2**53}
    cpu = {"time": NOW, "utilization_percent": 0.5}
    gpu = {"time": NOW, "ordinal": 2**53, "used_memory_bytes": 2**53, "utilization_percent": 0.5}
    message = {"time": NOW, "text": WIDE * 1024}
    record = {
        **dict.fromkeys(attempts.SCHEMA, "x" * 100),
        "granted_resources": {"custom": custom},
        "reason": WIDE * 1024,
        "memory_usage": [memory] * count,
        "cpu_utilization": [cpu] * count,
        "gpu_usage": [gpu] * count,
        "messages": [message] * count,
        "output": [
            {"offset": n, "stream": "stdout", "data": b"x"} for n in range(logs.SHORT_BYTES_MAX)
        ],
    }
    assert set(records.LISTS) <= record.keys()
    assert len(bson.encode(record)) < LIMIT // 2


def test_the_largest_worker_and_account_are_small():
    gpu = {"memory": 1, "compute_capability": "9.9", "uuid": WIDE * 96, "name": WIDE * 96}
    given = {
        "host": "h" * HOST_LENGTH_MAX,
        "resources": {
            "cores": 1,
            "memory": 1,
            "gpus": [gpu] * resources.OWN_GPUS_MAX,
            "custom": dict.fromkeys(names(resources.CUSTOM_NAMES_MAX), 0.5),
        },
        "queues": [f"{n:_<128}" for n in range(64)],
        "labels": words(),
    }
    worker = checked(workers.SCHEMA, given)
    worker |= {"claim_ids": [WIDE * 128] * CLAIM_IDS_MAX, "wanted": {"attempts": IDS[:256]}}
    assert len(bson.encode(worker)) < LIMIT // 4
    account = checked(accounts.SCHEMA, {"name": "a" * 128, "roles": accounts.ROLES})
    assert len(bson.encode(account)) < 1024


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", ["true", *[""] * tasks.COMMAND_WORDS_MAX]),
        ("command", WIDE * (tasks.COMMAND_CHARACTERS_MAX + 1)),
        ("env", {f"N{n}": "x" for n in range(1025)}),
        ("env", {f"N{n}": "x" * 65_536 for n in range(4)}),
        ("tags", dict.fromkeys(names(65), "x")),
        ("labels", {"x": "x" * 257}),
    ],
)
def test_what_is_larger_is_refused(field: str, value: Any):
    assert validation.check(tasks.SCHEMA, {field: value})[1]


# --- Relatives ----------------------------------------------------------------------------


@pytest.fixture
def database(module_database: str) -> Iterator[Any]:
    with MongoClient[Any](module_database) as client:
        yield client.get_default_database()


def test_a_task_has_no_more_children_than_it_has_room_for(play: Play, database: Any):
    (parent,) = play.submit(state="inactive")
    near = {"final_continuations": IDS[:-1]}
    database["tasks"].update_one({"_id": ObjectId(parent)}, {"$set": near})
    play.submit(state="inactive", after=[parent])
    answer = play.server.provider.post("tasks", {"command": "true", "after": [parent]})
    assert word(answer) == (413, "too_large")
    assert f"{sizes.RELATIVES_MAX:,}" in answer.json()["_error"]["message"]


@pytest.mark.parametrize("way", ["submit", "link"])
def test_a_task_waits_for_no_more_than_it_has_room_for(play: Play, database: Any, way: str):
    child, parent = play.submit(2, state="inactive")
    full = {"after_any": IDS}
    database["tasks"].update_one({"_id": ObjectId(child)}, {"$set": full})
    api = play.server.provider
    if way == "submit":
        answer = api.post("tasks", {"command": "true", "continuations": [child]})
    else:
        answer = api.post(f"tasks/{parent}/add_continuations", [child])
    assert word(answer) == (413, "too_large")
    assert "after" not in api.get(f"tasks/{parent}").json().get("continuations")
    with pytest.raises(BanyanError):
        edges._refuse_more({"_id": 1, "after_any": [*IDS, 1]}, PARENT_LISTS, "wait")


# --- Answers --------------------------------------------------------------------------------


def test_a_smaller_page_begins_where_the_larger_one_does():
    for size in (1, 7, 25, 100, 997, 1000):
        for page in (1, 2, 3, 40):
            for room in range(1, size + 1, 3):
                number, fewer = pages.smaller(page, size, room)
                assert (number - 1) * fewer == (page - 1) * size
                assert 1 <= fewer <= room


@pytest.fixture
def narrow(serve: Callable[..., Server]) -> Play:
    """A server whose pages have 64 KiB."""
    return Play(serve(PAGE_BYTES_MAX=65_536))


def walked(play: Play, **parameters: Any) -> list[list[dict[str, Any]]]:
    """The pages of a list, as a client that follows the links sees them."""
    api, found = play.server.provider, []
    answer = api.get("tasks", **parameters).json()
    while True:
        found.append(answer["_items"])
        assert len(answer["_items"]) <= answer["_meta"]["max_results"]
        if "next" not in answer["_links"]:
            return found
        answer = api.get(answer["_links"]["next"]["href"]).json()


@pytest.mark.parametrize("size", [1, 7, 25, 100])
def test_large_tasks_come_on_smaller_pages_and_none_is_left_out(narrow: Play, size: int):
    ids = narrow.submit(60, command="x" * 5000)
    ids += narrow.submit(3, command="x" * 30_000)
    found = walked(narrow, max_results=size)
    assert [task["_id"] for page in found for task in page] == ids
    for page in found:
        assert sum(len(task["command"]) for task in page) <= 65_536
    largest = max(len(page) for page in found)
    assert largest <= 13


def test_small_tasks_and_projections_come_as_they_are_asked_for(narrow: Play):
    ids = narrow.submit(60, command="x" * 5000)
    query = {"max_results": 60, "projection": json.dumps({"state": 1})}
    answer = narrow.server.provider.get("tasks", **query).json()
    assert [task["_id"] for task in answer["_items"]] == ids
    assert answer["_meta"]["max_results"] == 60


def test_one_task_that_is_larger_than_a_page_has_a_page_of_its_own(narrow: Play):
    env = {f"N{n}": "x" * 1000 for n in range(60)}
    ids = narrow.submit(3, command="x" * 30_000, env=env)
    found = walked(narrow, max_results=25)
    assert [[task["_id"] for task in page] for page in found][:3] == [[one] for one in ids]


def test_a_client_that_pages_by_itself_gets_all(narrow: Play):
    from banyan.client.api import Client

    ids = narrow.submit(60, command="x" * 5000)
    token = narrow.server.tokens["provider"]
    client = Client(narrow.server.url, token)
    assert [task["_id"] for task in client.find()] == ids
    assert [task["_id"] for task in client.find(limit=50)] == ids[:50]


def test_what_is_read_of_attempts_counts_too(narrow: Play):
    ids = narrow.submit(40, requested_resources={"cores": 0.1, "memory": 1})
    player = narrow.player()
    items = player.claim(40)
    assert len(items) == 40
    for item in items:
        player.report(item, messages=[{"text": "x" * 1000}] * 10)
    asked = {"projection": json.dumps({"messages": 1, "state": 1}), "max_results": 40}
    answer = narrow.server.provider.get("tasks", **asked)
    if answer.status_code == 200:
        assert len(answer.content) < 2 * 65_536
    asked["projection"] = json.dumps({"current_attempt": 1})
    found = walked(narrow, **asked)
    assert sorted(task["_id"] for page in found for task in page) == sorted(ids)
    assert all(task["current_attempt"]["messages"] for page in found for task in page)
    assert max(map(len, found)) <= 7
    asked["projection"] = json.dumps({"worker": 1})
    answer = narrow.server.provider.get("tasks", **asked).json()
    assert [task["worker"] for task in answer["_items"]] == [player.id] * 40


def test_history_and_running_say_that_there_is_more(narrow: Play):
    (task,) = narrow.submit(max_attempt_count=30)
    player = narrow.player()
    for _ in range(20):
        (item,) = player.claim(1)
        player.report(item, messages=[{"text": "x" * 1000}] * 10)
        player.end(item, "failure (1)")
    answer = narrow.server.provider.get(f"tasks/{task}/history").json()
    assert answer["truncated"]
    assert [one["attempt_count"] for one in answer["_items"]][-1] == 20
    assert 1 <= len(answer["_items"]) <= 6
    narrow.server.provider.post(f"tasks/{task}/cancel")
    narrow.submit(20, command="x" * 30_000, requested_resources={"cores": 0.1, "memory": 1})
    assert sum(len(player.claim(20)) for _ in range(10)) == 20
    running = narrow.server.provider.get(f"workers/{player.id}/running").json()
    assert running["truncated"]
    assert len(running["_items"]) == 2


@pytest.mark.parametrize("later", [False, True])
def test_a_claim_brings_no_more_than_an_answer_has_room_for(narrow: Play, later: bool):
    large = {"command": "x" * 30_000}
    more = {"requested_resources": {"cores": 0.1, "memory": 1}}
    ids = narrow.submit(10, **more, **({"state": "inactive"} if later else large))
    if later:
        for one in ids:
            answer = narrow.server.provider.patch(f"tasks/{one}", {**large, "state": "available"})
            assert answer.status_code == 200
    small = narrow.submit(5, **more)
    player = narrow.player()
    found = [[item["_id"] for item in player.claim(20)] for _ in range(6)]
    assert [len(each) for each in found][:4] == [2] * 4
    assert [one for each in found for one in each] == [*ids, *small]


def test_a_graph_of_very_many_edges_says_that_there_is_more(play: Play, database: Any):
    ids = play.submit(200, state="inactive")
    many = {name: [ObjectId(one) for one in ids] for name in CHILD_LISTS}
    wanted = {"_id": {"$in": many["continuations"]}}
    database["tasks"].update_many(wanted, {"$set": many})
    answer = play.server.provider.get(f"tasks/{ids[0]}/graph").json()
    assert answer["truncated"]
    assert len(answer["edges"]) == EDGES_MAX


def test_answers_about_many_tasks_leave_their_results_out(play: Play):
    keys = [ObjectId().binary.hex() for _ in range(3)]
    made = [{"command": "true", "queue": play.queue, "state": "available", "dedupe_key": key}
            for key in keys]  # fmt: skip
    ids = [item["_id"] for item in play.server.provider.post("tasks", made).json()["_items"]]
    player = play.player()
    items = player.claim(3)
    bodies = [{"_id": item["_id"], "result": "x" * 500_000,
               "update_execution_data": {"token": item["token"]}} for item in items]  # fmt: skip
    for body in bodies:
        assert player.api.patch("tasks", [body]).status_code == 200
    priority = [{"_id": one, "tags": {"a": "b"}} for one in ids]
    progress = [{**body, "progress": {"done": 1}} for body in bodies]
    for body in progress:
        del body["result"]
    answers = [
        play.server.provider.patch("tasks", priority),
        player.api.patch("tasks", progress),
        play.server.provider.post("tasks", made),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert [item["_id"] for item in answer.json()["_items"]] == ids
        assert len(answer.content) < 100_000
    assert len(play.task(ids[0])["result"]) == 500_000
