"""An account with two roles has the rights of each on what is its own by that role, and no more.

A provider changes the tasks that it has submitted; a worker sees what it may claim or holds. Who is
both must not change, as a provider, what it sees as a worker.
"""

import uuid
from typing import Any

import pytest

from tests.contract.playing import Play, Player, word
from tests.contract.playing import play as play
from tests.harness import Api

TASKS = ("waits", "held", "ended")
EDITS: list[dict[str, Any]] = [
    {"state": "inactive"},
    {"state": "available", "command": "echo mine"},
    {"priority": 5},
    {"add_continuations": ["0" * 24]},
]


class Both:
    """An account that is a provider and a worker, and three tasks of somebody else's.

    waits: anybody may claim it. held: a worker of the account holds it. ended: one has held it.
    """

    def __init__(self, play: Play, **more: Any) -> None:
        body = {"name": uuid.uuid4().hex, "roles": ["provider", "worker"], **more}
        made = play.server.admin.post("accounts", body)
        assert made.status_code == 201, made.text
        self.api = Api(play.server.url, made.json()["token"])
        self.player = Player(self.api, play.queue)
        self.waits, self.held, self.ended = play.submit(3)
        self.item = self.player.claim_one(self.held).json()
        ended = self.player.claim_one(self.ended).json()
        assert self.player.end(ended).status_code == 200

    def tasks(self) -> list[str]:
        return [getattr(self, name) for name in TASKS]


@pytest.fixture(params=[False, True], ids=["all-queues", "one-queue"])
def both(play: Play, request: pytest.FixtureRequest) -> Both:
    return Both(play, **({"queues": [play.queue]} if request.param else {}))


@pytest.fixture
def unchanged(play: Play, both: Both) -> Any:
    """Nothing of the tasks has changed at the end."""
    before = [play.task(task) for task in both.tasks()]
    yield
    assert [play.task(task) for task in both.tasks()] == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_it_edits_no_task_of_another(both: Both, edit: dict[str, Any]) -> None:
    for task in both.tasks():
        assert word(both.api.patch(f"tasks/{task}", edit)) == (404, "not_found")
    told = both.api.patch("tasks", [{"_id": task, **edit} for task in both.tasks()])
    assert {item["_error"]["word"] for item in told.json()["_items"]} == {"not_found"}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("verb", ["cancel", "retry", "forget"])
def test_it_acts_on_no_task_of_another(both: Both, verb: str) -> None:
    for task in both.tasks():
        assert word(both.api.post(f"tasks/{task}/{verb}")) == (404, "not_found")
    both.api.post(f"tasks/{verb}", {"targets": both.tasks()})


@pytest.mark.usefixtures("unchanged")
def test_it_ties_nothing_to_a_task_of_another(both: Both) -> None:
    for task in both.tasks():
        for name in ("after", "continuations"):
            refused = both.api.post("tasks", {"command": "x", name: [task]})
            assert word(refused) == (422, "invalid")
    own = both.api.post("tasks", {"command": "x"}).json()["_id"]
    refused = both.api.patch(f"tasks/{own}", {"add_continuations": [both.waits]})
    assert word(refused) == (422, "invalid")
    many = {"targets": both.tasks(), "add_continuations": [own]}
    assert word(both.api.post("tasks/add_continuations", many))[0] in (404, 405, 422)


def test_the_links_of_a_task_of_another_are_those_of_a_worker(both: Both, play: Play) -> None:
    of_worker = Player(play.server.worker, play.queue).api.get(f"tasks/{both.waits}")
    assert both.api.get(f"tasks/{both.waits}").json()["_links"] == of_worker.json()["_links"]
    seen = both.api.get("tasks", max_results=1000).json()["_items"]
    [listed] = [item for item in seen if item["_id"] == both.waits]
    assert not {"cancel", "retry", "forget", "add_continuations"} & listed["_links"].keys()
    own = both.api.post("tasks", {"command": "x", "state": "available"}).json()
    assert {"edit", "cancel"} <= own["_links"].keys()


def test_it_does_with_each_role_what_that_is_for(both: Both) -> None:
    own = both.api.post("tasks", {"command": "x", "queue": "elsewhere"}).json()["_id"]
    assert both.api.patch(f"tasks/{own}", {"priority": 3}).status_code == 200
    assert both.api.post(f"tasks/{own}/cancel").status_code == 200
    assert both.api.post(f"tasks/{own}/forget").status_code == 200
    assert both.player.end(both.item).status_code == 200


def test_a_worker_sees_no_task_before_its_time(play: Play) -> None:
    """What may not be claimed yet may be changed, and its environment with it."""
    [later] = play.submit(not_before="2999-01-01T00:00:00Z", env={"A": "b"})
    [now] = play.submit()
    worker = play.player().api
    assert word(worker.get(f"tasks/{later}")) == (404, "not_found")
    assert worker.get(f"tasks/{now}").status_code == 200
    assert word(play.player().claim_one(later)) == (422, "illegal_transition")


@pytest.mark.parametrize("path", ["", "/drain", "/resume", "/beat"])
def test_it_does_nothing_with_a_worker_of_another(both: Both, play: Play, path: str) -> None:
    """A provider sees all workers; to end one is for its own account."""
    other = play.player()
    assert both.api.get(f"workers/{other.id}").status_code == 200
    address = f"workers/{other.id}{path}"
    refused = both.api.post(address, {}) if path else both.api.delete(address)
    assert refused.status_code in (403, 404), refused.text
    assert word(both.api.post("tasks/claim", {"worker": other.id})) == (404, "not_found")
    assert play.server.operator.get(f"workers/{other.id}").json()["mode"] == "active"


@pytest.mark.parametrize("name", ["report_memory_usage", "messages"])
def test_what_only_a_worker_may_write_it_writes_as_one(both: Both, name: str) -> None:
    """As an owner it would be told that there is no such field."""
    assert word(both.api.post(f"tasks/{both.held}/{name}", [])) == (401, "token_missing")


def test_explain_names_no_task_of_another(play: Play) -> None:
    """An operator may have one wait for the other."""
    named = {"name": "a project that nobody knows of"}
    other = play.server.account("provider", name=uuid.uuid4().hex).post("tasks", named).json()
    own = play.server.provider.post("tasks", {"name": "own"}).json()["_id"]
    tied = play.server.operator.post(f"tasks/{other['_id']}/add_continuations", [own])
    assert tied.status_code == 200, tied.text
    told = play.server.provider.get(f"tasks/{own}/explain")
    assert told.json()["causes"][0]["count"] == 1
    assert named["name"] not in told.text
    assert named["name"] in play.server.operator.get(f"tasks/{own}/explain").text
