"""What lists of attempts lack counts only when two of them lack it that are far apart."""

from collections.abc import Iterator

import pytest
from bson import ObjectId

from banyan.server import unheard
from banyan.server.unheard import Unheard
from tests.server.explained import Bench

ONE, TWO = ObjectId(), ObjectId()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1000.0]
    monkeypatch.setattr(unheard, "monotonic", lambda: moment[0])
    return moment


def test_what_is_lacked_once_may_still_be_on_its_way(clock: list[float]) -> None:
    lists = Unheard()
    assert lists.lacked([ONE], []) == set()
    clock[0] += unheard.UNHEARD_OF_SECONDS - 0.01
    assert lists.lacked([ONE, TWO], []) == set()
    clock[0] += 0.01
    assert lists.lacked([ONE, TWO], []) == {ONE}


def test_a_list_that_has_it_makes_up_for_one_that_was_late(clock: list[float]) -> None:
    lists = Unheard()
    lists.lacked([ONE], [])
    clock[0] += 5
    lists.lacked([], [ONE])
    clock[0] += 30
    assert lists.lacked([ONE], []) == set()


def test_what_was_lacked_is_not_remembered_for_ever(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unheard, "_ENTRIES_MAX", 1)
    lists = Unheard()
    lists.lacked([ONE], [])
    lists.lacked([TWO], [])
    clock[0] += 30
    assert lists.lacked([ONE, TWO], []) == {TWO}


@pytest.fixture
def bench(fresh_database: str) -> Iterator[Bench]:
    made = Bench(fresh_database)
    yield made
    made.store.close()


def test_what_an_unanswered_claim_may_bring_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unheard, "UNHEARD_OF_SECONDS", 0)
    (task,), worker = bench.submit(1), bench.worker()
    bench.claim(worker, 1, claim_id="on its way")

    def state_after(**body: object) -> str:
        bench.ask("worker", "POST", f"/workers/{worker}/beat", {"attempts": [], **body})
        return str(bench.ask("provider", "GET", f"/tasks/{task}")["state"])

    assert state_after(claims=["on its way"]) == "running"
    assert state_after(claims=["another"]) == "available"
