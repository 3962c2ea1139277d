"""Tasks that all ask for something else: a claim looks at few of them, and none is forgotten."""

import random
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from banyan.domain.shape_keys import queue_key
from banyan.server import shapes
from banyan.server.calls import Context, Silent
from banyan.server.shapes import SHAPES, Parts, Shapes
from banyan.server.upkeep.duties import look_on
from tests.server.explained import Bench, Item

A_LOOK = 20

pytestmark = pytest.mark.usefixtures("nothing_remembered")


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "LOOKED_AT_MAX", A_LOOK)


def forget() -> None:
    """As a server process that has just started."""
    vars(SHAPES).update(vars(Shapes()))


def submit(bench: Bench, tasks: list[Item]) -> list[str]:
    ids: list[str] = []
    for start in range(0, len(tasks), 1000):
        given = [{"command": "x", "state": "available", **one} for one in tasks[start:][:1000]]
        ids += [one["_id"] for one in bench.ask("provider", "POST", "/tasks", given)["_items"]]
    return ids


def of_sizes(count: int, **more: Any) -> list[Item]:
    """Tasks of which no two ask for the same."""
    return [
        {"requested_resources": {"cores": 1, "memory": 1_000_000 + number}, **more}
        for number in range(count)
    ]


def too_large(count: int) -> list[Item]:
    """The same, for no worker here."""
    large = {"requested_resources": {"cores": 20_000}}
    return [{**large, "labels": {"n": str(number)}} for number in range(count)]


def claimed(bench: Bench, worker: str, most: int = 1) -> list[str]:
    """What one claim gets, if anything."""
    found = bench.ask("worker", "POST", "/tasks/claim", {"worker": worker, "max": most})
    return [one["_id"] for one in found["_items"]]


def names(sent: list[Item]) -> list[str]:
    """What was sent, but for looks at who asks, which is remembered for a moment."""
    return [next(iter(one)) for one in sent if "tokens" not in one.values()]


def examined(bench: Bench, work: Callable[[], Any]) -> int:
    """How many documents the database looks at for the reads of this work.

    Of the index, MongoDB reads some megabytes ahead, however few are asked for.
    """
    sent = bench.during(work)
    assert not [one for one in sent if "distinct" in one], "its answer has no bound"
    pages = [one for one in sent if "aggregate" in one and "$gt" in str(one["pipeline"][0])]
    assert all({"$limit": A_LOOK} in one["pipeline"] for one in pages)
    assert len(pages) <= 1
    return sum(bench.examined(one) for one in sent if "find" in one or "aggregate" in one)


@pytest.mark.parametrize("known", [True, False])
def test_a_claim_looks_at_as_many_whatever_waits(bench: Bench, short_looks: None, known: bool):
    worker = bench.worker()
    seen = []
    for _ in range(2):
        submit(bench, [{**one, "labels": {"n": str(random.random())}} for one in of_sizes(300)])
        if not known:
            forget()
        seen.append(examined(bench, lambda: claimed(bench, worker)))
    assert max(seen) <= 3 * A_LOOK, seen


def test_the_database_is_asked_as_often_for_many_as_for_few(bench: Bench):
    worker = bench.worker()
    submit(bench, of_sizes(2))
    bench.claim(worker, 1)
    few = names(bench.during(lambda: bench.claim(worker, 1)))
    submit(bench, of_sizes(2000))
    assert names(bench.during(lambda: bench.claim(worker, 1))) == few


def test_the_order_holds_among_thousands(bench: Bench):
    sizes = of_sizes(1500)
    random.shuffle(sizes)
    ids = submit(bench, [{**one, "priority": n} for n, one in enumerate(sizes)])
    worker = bench.worker()
    for fits in (None, {"cores": 5, "memory": "1 TiB"}):
        more = {"fits": fits} if fits else {}
        assert [one["_id"] for one in bench.claim(worker, 5, **more)] == [
            ids.pop() for _ in range(5)
        ]


def test_a_rare_one_is_found_among_very_many_that_do_not_fit(bench: Bench, short_looks: None):
    submit(bench, too_large(10 * A_LOOK))
    forget()
    (rare,) = submit(bench, of_sizes(1))
    forget()
    worker = bench.worker()
    looks = (claimed(bench, worker) for _ in range(1000))  # each sees one part of about eleven
    assert next(filter(None, looks)) == [rare]


def test_all_are_claimed_in_the_end(bench: Bench, short_looks: None):
    ids = submit(bench, of_sizes(5 * A_LOOK))
    forget()
    worker, got = bench.worker(), list[str]()
    for _ in range(1000):
        got += claimed(bench, worker, 9)
        if len(got) == len(ids):
            break
    assert sorted(got) == sorted(ids)


def test_whoever_waits_looks_on_while_no_look_sees_all(
    bench: Bench, short_looks: None, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []

    class Heard(Silent):
        def signal(self, topic: str, **more: Any) -> None:
            said.append(topic)

    context = Context(bench.store, Heard())
    forget()
    look_on(context)
    assert said == []
    submit(bench, too_large(3 * A_LOOK))
    assert claimed(bench, bench.worker()) == []
    look_on(context)
    assert len(said) == 1
    clock = monotonic() + 1000
    monkeypatch.setattr(shapes, "monotonic", lambda: clock)
    look_on(context)
    assert len(said) == 1, "nobody looks there any more"


def worker_for(bench: Bench, *queues: str) -> str:
    own = {"cores": 1000, "memory": "1 TiB"}
    body = {"host": "h", "resources": own, "queues": queues}
    return str(bench.ask("worker", "POST", "/workers", body)["_id"])


def test_shapes_of_other_queues_hide_none(bench: Bench, short_looks: None):
    submit(bench, of_sizes(10 * A_LOOK, queue="atk"))
    worker = worker_for(bench, "ours", "more")
    for number in range(30):
        (one,) = submit(bench, of_sizes(1, queue="ours", labels={}, name=str(number)))
        forget()
        assert examined(bench, lambda one=one: found(bench, worker, one)) <= 10 + number


def found(bench: Bench, worker: str, task: str) -> None:
    assert claimed(bench, worker) == [task]


def test_what_has_come_lately_is_seen_among_very_many(
    bench: Bench, short_looks: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shapes, "LATELY_MAX", 5)
    submit(bench, too_large(10 * A_LOOK))
    worker = worker_for(bench, "default")
    for _ in range(11):
        assert claimed(bench, worker) == []  # by now it is known that there are many parts
    for number in range(30):
        (one,) = submit(bench, of_sizes(1, tags={"n": str(number)}))
        found(bench, worker, one)


def test_the_shapes_of_many_queues_are_one_question(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    ids = [submit(bench, of_sizes(1, queue=f"q{n}"))[0] for n in range(64)]
    worker = worker_for(bench, *(f"q{n}" for n in range(64)))
    forget()
    sent = bench.during(lambda: claimed(bench, worker, 10))
    assert sum("aggregate" in one for one in sent) == 2, "which wait, and what they stand for"
    assert claimed(bench, worker, 10) == ids[10:20]
    monkeypatch.setattr(shapes, "FEW", 20)
    sent = bench.during(lambda: claimed(bench, worker, 10))
    assert sum("aggregate" in one for one in sent) == 2, "first whether few wait in all"
    assert claimed(bench, worker, 10) == ids[30:40]


def test_an_unknown_one_is_looked_up_before_the_many_of_another_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shapes, "LOOKED_UP_MAX", 5)
    submit(bench, of_sizes(100, queue="atk"))
    (one,) = submit(bench, [{"requested_resources": {"cores": 1}, "priority": -1}])
    worker = worker_for(bench, "default", "atk")
    for _ in range(10):
        forget()
        heads = SHAPES.waiting(bench.store, {"atk": 1000, "default": 1000})
        queues = [shape["queue"] for shape in SHAPES.look_up(bench.store, heads).values()]
        assert len(queues) == 5
        assert queues.count("default") == 1
    assert one in claimed(bench, worker, 1000)


def test_of_many_queues_the_last_ones_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "QUEUES_MAX", 5)
    forget()
    submit(bench, [one for n in range(20) for one in of_sizes(1, queue=f"q{n}")])
    assert len(SHAPES._queues) == 5
    assert claimed(bench, worker_for(bench, "q0"))


def test_what_has_come_is_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    forget()
    submit(bench, of_sizes(50))
    clock = monotonic() + 10
    monkeypatch.setattr(shapes, "monotonic", lambda: clock)
    submit(bench, of_sizes(1, queue="other"))
    assert sum(len(queue.come) for queue in SHAPES._queues.values()) == 1


def test_what_another_process_took_in_is_known_by_its_tasks(bench: Bench):
    """No list of shapes is kept that a crash, or a restored backup, could leave without one."""
    (one,) = submit(bench, of_sizes(1))
    forget()
    assert [item["_id"] for item in bench.claim(bench.worker(), 1)] == [one]


def test_each_part_has_the_same_chance_wherever_shapes_crowd(monkeypatch: pytest.MonkeyPatch):
    keys = sorted([f"{n:05}" for n in range(0, 1000, 100)] + [f"004{n:05}" for n in range(200)])
    parts, seen = Parts(), set[str]()
    for _ in range(2000):
        start = parts.draw()
        page = [key for key in keys if key > start][:A_LOOK]
        parts.was_read(start, page[-1] if len(page) == A_LOOK else None)
        seen |= set(page)
    assert seen == set(keys)
    assert len(parts._starts) <= 2 * len(keys) / A_LOOK
    parts.was_read("", None)
    assert not parts.are_many


def test_what_one_look_has_found_is_kept_for_a_moment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Also where another queue is looked at all the time."""
    moment = [100.0]
    monkeypatch.setattr(shapes, "monotonic", lambda: moment[0])
    monkeypatch.setattr(shapes, "WAITING_SECONDS", 10)
    forget()
    submit(bench, [one for queue in ("busy", "rare") for one in of_sizes(1, queue=queue)])
    SHAPES.waiting(bench.store, {"busy": 1})
    SHAPES.waiting(bench.store, {"rare": 1})
    for _ in range(10):
        moment[0] += 2
        SHAPES.waiting(bench.store, {"busy": 1})
    busy, rare = (SHAPES._queue(bench.store, queue_key(name)) for name in ("busy", "rare"))
    assert [len(busy.heads), len(rare.heads)] == [1, 0]
    assert list(SHAPES._with_heads) == [busy]


def test_large_labels_are_not_all_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "REMEMBERED_BYTES_MAX", 100_000)
    forget()
    labels = {f"l{n}": "x" * 250 for n in range(40)}
    submit(bench, [{"labels": {**labels, "n": str(n)}} for n in range(100)])
    submit(bench, [{"labels": {**labels, "n": str(n)}} for n in range(100, 120)])
    assert len(SHAPES._known) <= 20
