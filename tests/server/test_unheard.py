"""What lists of attempts lack counts only when two of them lack it that are far apart."""

import pytest
from bson import ObjectId

from banyan.server import unheard
from banyan.server.unheard import Unheard
from tests.server.explained import Bench

ONE, TWO, WORKER = ObjectId(), ObjectId(), ObjectId()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moment = [1000.0]
    monkeypatch.setattr(unheard, "monotonic", lambda: moment[0])
    return moment


def test_what_is_lacked_once_may_still_be_on_its_way(clock: list[float]) -> None:
    lists = Unheard()
    assert lists.lacked(WORKER, [ONE]) == set()
    clock[0] += unheard.UNHEARD_OF_SECONDS - 0.01
    assert lists.lacked(WORKER, [ONE, TWO]) == set()
    clock[0] += 0.01
    assert lists.lacked(WORKER, [ONE, TWO]) == {ONE}


def test_a_list_that_has_it_makes_up_for_one_that_was_late(clock: list[float]) -> None:
    lists = Unheard()
    lists.lacked(WORKER, [ONE])
    clock[0] += 5
    lists.lacked(WORKER, [])
    clock[0] += 30
    assert lists.lacked(WORKER, [ONE]) == set()


def test_who_lacks_very_many_has_them_told_in_turns(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unheard, "_OF_WORKER_MAX", 2)
    lists, many, told = Unheard(), [ObjectId() for _ in range(6)], set[ObjectId]()
    for _ in range(6):
        told |= lists.lacked(WORKER, [one for one in many if one not in told])
        clock[0] += 10
    assert told == set(many)


def test_a_worker_that_holds_very_many_pushes_out_no_other(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unheard, "_IN_ALL_MAX", 10)
    lists, rogues = Unheard(), [ObjectId() for _ in range(20)]
    for _ in range(2):
        assert lists.lacked(WORKER, [ONE]) == set()
        for rogue in rogues:
            lists.lacked(rogue, [ObjectId() for _ in range(20)])
        clock[0] += 5
    assert lists.lacked(WORKER, [ONE]) == {ONE}
    assert lists._count <= 10


def test_of_workers_that_are_gone_nothing_is_remembered(clock: list[float]) -> None:
    lists = Unheard()
    lists.lacked(ObjectId(), [ONE])
    clock[0] += 1000
    lists.lacked(WORKER, [TWO])
    assert list(lists._of_worker) == [WORKER]


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
