"""A database put back to an older state: what ran then runs again, who came later is refused."""

from collections.abc import Callable
from typing import Any

from banyan.server.doctor import database, examine
from tests.contract.playing import Play, word
from tests.harness import Server, eventually

Snapshot = dict[str, list[dict[str, Any]]]


def test_after_a_restore_what_ran_runs_again_and_later_attempts_are_refused(
    serve: Callable[..., Server], fresh_database: str
):
    play = Play(serve(LEASE_SECONDS=2, LEASE_MARGIN_SECONDS=0.5, UPKEEP_SECONDS=0.2))
    first, second = play.submit(count=2)
    player = play.player()
    before = player.claim_one(first).json()
    with database(fresh_database) as store:
        names = ["tasks", "attempts", "workers", "log_chunks"]
        snapshot: Snapshot = {name: list(store[name].find()) for name in names}
        late = play.player()
        after = late.claim_one(second).json()
        assert player.end(before).status_code == 200
        for name, documents in snapshot.items():
            store[name].delete_many({})
            if documents:
                store[name].insert_many(documents)
        assert word(late.end(after)) == (409, "lease_lost")
        assert word(late.beat()) == (404, "not_found")
        eventually(lambda: play.task(first)["state"] == "available", 30)
        assert word(player.end(before)) == (409, "lease_lost")
        assert [one["exit_status"] for one in play.attempts(first)] == ["lost"]
        fresh = play.player()
        assert fresh.end(fresh.claim_one(first).json()).status_code == 200
        assert examine(store, again_after_seconds=0) == []
