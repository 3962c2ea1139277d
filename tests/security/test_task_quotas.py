"""What tasks submit, by tokens that rogue workers hold, keeps no owner out of its quotas."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.playing import Player, word
from tests.harness import Api, Server, eventually

EXCEEDED = (403, "quota_exceeded")


class Rogue:
    """A worker's account that holds one task of the provider's, and its token."""

    def __init__(self, server: Server, **more: Any) -> None:
        self.server = server
        task = {"command": "x", "state": "available", "queue": "weak", **more}
        self.task: str = server.provider.post("tasks", task).json()["_id"]
        self.player = Player(server.worker, "weak")
        self.claim()

    def claim(self) -> None:
        answer = self.player.claim_one(self.task)
        assert answer.status_code == 200, answer.text
        self.item = answer.json()
        self.api = Api(self.server.url, self.item["token"])

    def release(self) -> None:
        body = {"tokens": [self.item["token"]], "reason": "again"}
        answer = self.server.worker.post("tasks/release", body)
        assert answer.status_code == 200, answer.text

    def fill_up(self, sizes: bool = False) -> Any:
        """Submit until it is refused; the refusal."""
        for number in range(100):
            task = {"requested_resources": {"memory": 2**30 + number}} if sizes else {}
            answer = self.api.post("tasks", task)
            if answer.status_code != 201:
                assert word(answer) == EXCEEDED
                return answer.json()
        raise AssertionError("it was never refused")

    def count(self) -> int:
        where = f'{{"submitted_by":"{self.task}"}}'
        found = self.server.provider.get("tasks", where=where, max_results=1000)
        return len(found.json()["_items"])


@pytest.mark.parametrize(
    ("knob", "limit", "sizes"),
    [
        ("OWNER_OPEN_TASKS_MAX", "open_tasks", False),
        ("OWNER_TASKS_MAX", "tasks", False),
        ("OWNER_OPEN_SHAPES_MAX", "open_shapes", True),
    ],
)
def test_one_half_of_each_quota_is_the_accounts_own(
    serve: Callable[..., Server], knob: str, limit: str, sizes: bool
):
    rogue = Rogue(serve(**{knob: 12}))
    refused = rogue.fill_up(sizes)
    assert (refused["limit"], refused["value"], refused["asked"]) == (limit, 6, 1)
    assert knob in refused["_error"]["message"]
    assert 3 <= rogue.count() <= 6
    for number in range(5):
        task = {"queue": "strong", "requested_resources": {"memory": 2**20 + number}}
        answer = rogue.server.provider.post("tasks", task)
        assert answer.status_code == 201, answer.text
    assert rogue.fill_up(sizes)["limit"] == limit


def test_where_the_owner_has_few_its_tasks_submit_again(serve: Callable[..., Server]):
    rogue = Rogue(serve(OWNER_OPEN_TASKS_MAX=12))
    ids = [one["_id"] for one in rogue.server.provider.post("tasks", [{}] * 6).json()["_items"]]
    assert rogue.fill_up()["limit"] == "open_tasks"
    assert rogue.count() == 0
    assert rogue.server.provider.post("tasks/cancel", {"targets": ids}).status_code == 200
    eventually(lambda: rogue.api.post("tasks", {}).status_code == 201)


def test_who_gives_a_task_back_and_claims_it_again_submits_no_more(serve: Callable[..., Server]):
    rogue = Rogue(serve(TASK_SUBMISSIONS_MAX=3))
    assert rogue.fill_up()["used"] == 3
    for _ in range(2):
        rogue.release()
        rogue.claim()
        refused = rogue.fill_up()
        assert (refused["limit"], refused["used"]) == ("task_submissions", 3)
    assert rogue.count() == 3


def test_a_task_that_its_owner_retries_begins_anew(serve: Callable[..., Server]):
    rogue = Rogue(serve(TASK_SUBMISSIONS_MAX=3), max_attempt_count=2)
    provider = rogue.server.provider
    assert rogue.fill_up()["used"] == 3
    assert rogue.player.end(rogue.item, "failure (1)").status_code == 200
    rogue.claim()
    assert rogue.fill_up()["used"] == 3, "not by its own retries"
    assert rogue.player.end(rogue.item, "failure (1)").status_code == 200
    assert provider.post(f"tasks/{rogue.task}/retry").status_code == 200
    assert "submission_count" not in provider.get(f"tasks/{rogue.task}").json()
    rogue.claim()
    assert rogue.api.post("tasks", [{}] * 3).status_code == 201
    assert provider.get(f"tasks/{rogue.task}").json()["submission_count"] == 3
