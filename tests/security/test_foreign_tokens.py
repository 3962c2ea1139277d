"""Nobody is told the token of an attempt that is not its own, whatever happens meanwhile."""

from typing import Any

import pytest
from bson import ObjectId

from banyan.server.store import accounts, handover, tasks
from tests.server.explained import Bench


@pytest.fixture
def bench(fresh_database: str) -> Bench:
    made = Bench(fresh_database)
    account = accounts.insert(made.store, "honest", ["worker"])
    made.tokens["honest"] = accounts.issue(made.store, account)
    return made


def registered(bench: Bench, role: str) -> str:
    body = {"host": "h", "resources": {"cores": 100, "memory": "1 TiB"}}
    return str(bench.ask(role, "POST", "/workers", body)["_id"])


def test_a_thief_is_not_told_that_of_who_has_the_task_by_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loot is given back, and claimed by another, before the answer is made."""
    ids = bench.submit(3)
    bench.claim(bench.worker(), 3)  # without a start: what is not reported as such is stolen
    thief, other = bench.worker(), registered(bench, "honest")
    apply = handover.apply
    claimed: list[dict[str, Any]] = []

    def overtaken(*arguments: Any) -> Any:
        written = apply(*arguments)
        monkeypatch.setattr(handover, "apply", apply)
        bench.ask("worker", "POST", f"/workers/{thief}/beat", {"attempts": [], "takes_over": 1})
        body = {"worker": other, "max": len(ids), "start": True}
        claimed.extend(bench.ask("honest", "POST", "/tasks/claim", body)["_items"])
        return written

    monkeypatch.setattr(handover, "apply", overtaken)
    stolen = bench.ask("worker", "POST", "/tasks/steal", {"worker": thief, "max": 9})["_items"]
    assert claimed, "it was given back meanwhile"
    assert not {one["token"] for one in claimed} & {one["token"] for one in stolen}


def test_a_repeated_claim_id_brings_no_more_than_an_answer_has_room_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that was forgotten claims anew: several claims may have the same."""
    monkeypatch.setattr("banyan.server.store.workers.CLAIM_IDS_MAX", 1)
    env = {"A": "x" * 100_000, "B": "x" * 100_000}
    per_claim, claims = 60, 3
    worker = bench.worker()
    found = 0
    for _ in range(claims):
        bench.submit(per_claim, env=env)
        found += len(bench.claim(worker, per_claim, claim_id="same"))
        bench.ask("worker", "POST", "/tasks/claim", {"worker": worker, "claim_id": "another"})
    again = {"worker": worker, "max": 1, "claim_id": "same"}
    headers = {"Authorization": f"Bearer {bench.tokens['worker']}"}
    bench.store["workers"].update_one({}, {"$push": {"claim_ids": "same"}})
    answer = bench.client.post("/tasks/claim", json=again, headers=headers)
    assert found == claims * per_claim
    assert len(answer.data) < 17 * 2**20
    held = tasks.held_by(bench.store, [ObjectId(worker)], ["_id"])
    assert 0 < len(answer.json["_items"]) < len(held)
