"""Claims that look at much and take nothing: they make no other account's claims wait for long."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from banyan.config import knobs
from banyan.domain import resources
from banyan.domain.resources import Capacity, Gpu, Grant, fits
from banyan.server.gathering import Gathering
from banyan.server.shapes import LOOKED_AT_MAX
from banyan.server.store import accounts
from banyan.server.store.mongo import Store
from banyan.server.verbs import choosing
from banyan.server.verbs.choosing import Chosen, Wish
from banyan.server.verbs.claim import CLAIMS
from tests.harness import eventually
from tests.security.test_many_shapes import of_sizes, submit
from tests.server.explained import Bench

GREEDY = {"max": 1000, "ahead": 1000, "fits": {"cores": 0}, "steal": True}
MANY = 24

pytestmark = pytest.mark.usefixtures("nothing_remembered")


@pytest.fixture
def bench(bench: Bench) -> Bench:
    mallory = accounts.insert(bench.store, "mallory", ["worker"])
    bench.tokens["mallory"] = accounts.issue(bench.store, mallory)
    return bench


def worker_of(bench: Bench, account: str) -> str:
    gpus = [{"memory": 2**30 + n, "compute_capability": "9.0"} for n in range(64)]
    own = {"cores": 4, "memory": "8 GiB", "gpus": gpus}
    body = {"host": "h", "resources": own}
    return str(bench.ask(account, "POST", "/workers", body)["_id"])


def claim(bench: Bench, account: str, worker: str, **more: Any) -> list[Any]:
    body = {"worker": worker, **more}
    items: list[Any] = bench.ask(account, "POST", "/tasks/claim", body)["_items"]
    return items


class Groups:
    """Works for so many of each group, and notes what it was asked for."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.worked: list[list[tuple[str, int]]] = []
        self.go_on = threading.Event()

    def __call__(self, wants: Sequence[tuple[str, int]]) -> list[int]:
        assert self.go_on.wait(30)
        self.worked.append(list(wants[: self.at_once]))
        return [number for _, number in wants[: self.at_once]]


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("hostile", [1, 3])
def test_of_each_account_one_comes_first(at_once: int, hostile: int):
    groups = Groups(at_once)
    gathering = Gathering(groups, lambda want: want[0])
    wants = [(f"mallory{n % hostile}", n) for n in range(MANY)] + [("ours", MANY)]
    with ThreadPoolExecutor(MANY + 1) as pool:
        asked = [pool.submit(gathering.get, "here", wants[0])]
        eventually(lambda: not gathering.waiting("here") and gathering._at("here").busy)
        for number, want in enumerate(wants[1:], 1):
            asked.append(pool.submit(gathering.get, "here", want))
            eventually(lambda number=number: len(gathering.waiting("here")) == number)
        groups.go_on.set()
    assert [one.result() for one in asked] == list(range(MANY + 1)), "each has got its own"
    worked = [want for group in groups.worked for want in group]
    assert worked.index(wants[-1]) <= 1 + hostile


def test_who_was_worked_for_last_comes_last():
    """Else who asks again at once would be the first of each group."""
    groups = Groups(1)
    groups.go_on.set()
    gathering = Gathering(groups, lambda want: want[0])
    assert gathering.get("here", ("mallory", 1)) == 1
    with ThreadPoolExecutor(2) as pool, gathering.held_up("here"):
        asked = []
        for number, account in enumerate(("mallory", "ours"), 1):
            asked.append(pool.submit(gathering.get, "here", (account, number)))
            eventually(lambda number=number: len(gathering.waiting("here")) == number)
    assert groups.worked[1:] == [[("ours", 2)], [("mallory", 1)]]


def test_a_claim_of_another_account_waits_for_few_looks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    submit(bench, of_sizes(50, queue="default"))
    mine, hostile = worker_of(bench, "worker"), worker_of(bench, "mallory")
    monkeypatch.setattr(choosing, "TOGETHER_MAX", 100)
    greedy = {"fits": {"cores": 0}}  # it has no room for anything
    looked: list[list[str]] = []
    choose_for = choosing.choose_for

    def noted(store: Store, wishes: Sequence[Wish]) -> list[Chosen]:
        chosen = choose_for(store, wishes)
        looked.append([wish.worker["account"] for wish in wishes[: len(chosen)]])
        return chosen

    monkeypatch.setattr(choosing, "choose_for", noted)
    with ThreadPoolExecutor(MANY + 1) as pool:
        with CLAIMS.held_up(bench.store):
            for n in range(MANY):
                labels = {"x": str(n)}
                pool.submit(claim, bench, "mallory", hostile, labels=labels, **greedy)
            eventually(lambda: len(CLAIMS.waiting(bench.store)) == MANY)
            ours = pool.submit(claim, bench, "worker", mine)
            eventually(lambda: len(CLAIMS.waiting(bench.store)) == MANY + 1)
        assert len(ours.result(60)) == 1
    before = [account for group in looked for account in group]
    assert len(before) == MANY + 1
    assert len(looked) > 5, "they were not all of one group"
    own = next(account for account in before if before.count(account) == 1)
    assert before.index(own) <= 2


def finds(bench: Bench, work: Callable[[], Any]) -> int:
    sent = bench.during(work)
    return sum("find" in one and "shape" in one["filter"] for one in sent)


def test_who_could_take_very_many_kinds_reads_few_of_them(bench: Bench):
    submit(bench, of_sizes(1500))
    hostile = worker_of(bench, "mallory")
    assert finds(bench, lambda: claim(bench, "mallory", hostile, **GREEDY)) <= 4
    greedy = {"max": 1000, "ahead": 1000}
    assert finds(bench, lambda: claim(bench, "mallory", hostile, **greedy)) <= 8


def test_of_so_many_kinds_the_first_are_taken_and_then_the_next(bench: Bench):
    ids = submit(bench, of_sizes(700))
    worker = bench.worker()
    got: list[str] = []
    for _ in range(3):
        got += [one["_id"] for one in claim(bench, "worker", worker, max=1000)]
    assert got == ids


def test_who_asks_for_no_gpu_is_not_compared_with_any(monkeypatch: pytest.MonkeyPatch):
    made: list[Gpu] = []

    def least(grant: Grant) -> Gpu:
        made.append(Gpu(grant.gpu_memory_bytes, grant.gpu_capability))
        return made[-1]

    monkeypatch.setattr(resources, "_least_gpu", least)
    free = Capacity(cores=4, memory_bytes=4, gpus=(Gpu(1, (9, 0)),) * 64)
    assert fits(Grant(cores=1, memory_bytes=1), free)
    assert not made
    assert fits(Grant(cores=1, memory_bytes=1, gpu_count=64), free)
    assert not fits(Grant(cores=1, memory_bytes=1, gpu_count=65), free)
    assert len(made) <= 1


def test_one_owner_alone_leaves_room_for_others_in_a_look():
    assert 2 * knobs().OWNER_OPEN_SHAPES_MAX <= LOOKED_AT_MAX
