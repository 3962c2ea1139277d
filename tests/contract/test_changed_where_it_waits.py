"""A task that is available is changed in one write by who says so: nobody holds it first."""

from functools import partial

import pytest

from tests.contract.asking import make, read, refused
from tests.contract.playing import Play, at_once
from tests.contract.test_tasks import CHANGEABLE
from tests.harness import Server


@pytest.mark.parametrize("field", CHANGEABLE)
def test_what_waits_is_changed_where_it_waits_by_who_says_so(server: Server, field: str):
    before, after = CHANGEABLE[field]
    task = make(server.provider, state="available", **{field: before})
    answer = server.provider.patch(f"tasks/{task['_id']}", {"state": "available", field: after})
    assert answer.status_code == 200, answer.text
    changed = read(server.provider, task)
    assert changed["state"] == "available"
    assert changed[field] != task[field]
    again = server.provider.patch(f"tasks/{task['_id']}", {"state": "available", field: after})
    assert again.json()["_etag"] == changed["_etag"]


def test_what_a_worker_holds_is_not_changed_as_if_it_waited(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    play.player().claim()
    more = {"state": "available", "requested_resources": {"cores": 2}}
    answer = server.provider.patch(f"tasks/{task_id}", more)
    assert refused(answer, 422).keys() == {"requested_resources"}
    assert answer.json()["state"] == "running"


def test_what_becomes_a_group_where_it_waits_has_ended(server: Server):
    task = make(server.provider, state="available", command="true")
    server.provider.patch(f"tasks/{task['_id']}", {"state": "available", "command": None})
    assert read(server.provider, task)["state"] == "terminated"


def test_a_worker_that_waits_gets_what_fits_since_it_was_changed(server: Server):
    play = Play(server)
    [task_id] = play.submit(requested_resources={"memory": "1 PiB"})
    less = {"state": "available", "requested_resources": {"memory": "1 MiB"}}
    player = play.player()
    assert player.claim() == []
    change = partial(server.provider.patch, f"tasks/{task_id}", less)
    _, claimed = at_once([change, partial(player.claim, wait=30)])
    assert [item["_id"] for item in claimed] == [task_id]
