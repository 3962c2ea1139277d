"""What /metrics says: read as Prometheus reads it, from the database, the same everywhere."""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient

from banyan.config import knobs
from banyan.server import exposition
from banyan.server.app import create_app
from banyan.server.counters import COUNTERS, Counters, series
from banyan.server.upkeep.loop import Upkeep
from tests.harness import eventually
from tests.server.worlds import NOW, World

Labels = frozenset[tuple[str, str]]
Values = dict[tuple[str, Labels], float]


@pytest.fixture
def world(fresh_database: str) -> Iterator[World]:
    COUNTERS.drain()
    made = World(fresh_database)
    yield made
    made.store.close()


def read(world: World, client: Any = None) -> Values:
    """What it says now, cached by nobody."""
    for app in (client or world.client).application, world.client.application:
        app.extensions["banyan"].exposition._good_until = 0.0
    headers = {"Authorization": f"Bearer {world.tokens['operator']}"}
    answer = (client or world.client).get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


def parsed(text: str) -> Values:
    found: Values = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert exposition.FAMILIES[name] == (family.type, family.documentation)
        for sample in family.samples:
            assert (sample.name, frozenset(sample.labels.items())) not in found, "told twice"
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def value(values: Values, name: str, **labels: str) -> float | None:
    return values.get((name, frozenset(labels.items())))


def test_every_family_is_told_and_every_line_is_read(world: World):
    world.fill(random.Random(1), 200)
    world.tally()
    world.ask("alice")
    headers = {"Authorization": f"Bearer {world.tokens['operator']}"}
    text = world.client.get("/metrics", headers=headers).text
    told = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert told == sorted(exposition.FAMILIES)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(parsed(text)) == len(lines)


def test_histograms_add_up(world: World):
    world.fill(random.Random(2), 300)
    world.tally()
    values = read(world)
    values = read(world)  # the first one is counted by now
    grouped: dict[tuple[str, Labels], list[tuple[float, float]]] = {}
    for (name, labels), count in values.items():
        if name.endswith("_bucket"):
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            bound = float(dict(labels)["le"])
            grouped.setdefault((name.removesuffix("_bucket"), rest), []).append((bound, count))
    assert {name for name, _ in grouped} >= {
        "banyan_task_run_seconds", "banyan_task_wait_seconds",
        "banyan_http_request_duration_seconds",
    }  # fmt: skip
    for (name, labels), buckets in grouped.items():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts)
        assert max(buckets)[0] == float("inf")
        assert counts[-1] == values[f"{name}_count", labels] > 0
        assert values[f"{name}_sum", labels] >= 0


def test_what_attempts_came_to(world: World):
    world.fill(random.Random(3), 300)
    world.tally()
    values = read(world)
    ended = [one for one in world.attempts if one["time_terminated"]]
    words = Counter(one["exit_status"].split()[0] for one in ended)
    for word, count in words.items():
        assert value(values, "banyan_attempts_total", outcome=word) == count
    started = [one for one in ended if one["time_started"]]
    took = [one["time_terminated"] - one["time_started"] for one in started]
    for bound, text in ((1, "1"), (100, "100"), (1000, "1000")):
        below = sum(one <= timedelta(seconds=bound) for one in took)
        told = [
            value(values, "banyan_task_run_seconds_bucket", outcome=word, le=text) for word in words
        ]
        assert sum(one or 0 for one in told) == below
    states = Counter(one["state"] for one in world.tasks)
    for state, count in states.items():
        assert value(values, "banyan_tasks", state=state) == count


def test_counters_never_fall(world: World):
    world.fill(random.Random(4), 300)
    world.tally(NOW - timedelta(hours=1))
    before = read(world)
    world.tally()
    world.store["attempts"].delete_many({})
    world.store["tasks"].delete_many({})
    world.tally()
    after = read(world)
    for (name, labels), count in before.items():
        if name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert after[name, labels] >= count, name


def test_each_process_says_the_same_and_a_new_one_goes_on(world: World):
    world.fill(random.Random(5), 100)
    world.tally()
    for _ in range(3):
        world.ask("alice")
    first = read(world)
    asked = {"route": "/tasks/statistics", "method": "GET", "status": "200"}
    assert value(first, "banyan_http_requests_total", **asked) == 3
    app = create_app(world.uri)
    other = read(world, app.test_client())
    app.extensions["banyan"].context.store.close()
    of_asking = {"/metrics"}
    for (name, labels), count in first.items():
        own = {"process"} & dict(labels).keys() or of_asking & set(dict(labels).values())
        if not own and name != "banyan_oldest_available_seconds":
            assert other[name, labels] == count, name


def test_addresses_are_counted_by_their_template(world: World):
    world.fill(random.Random(6), 3)
    headers = {"Authorization": f"Bearer {world.tokens['alice']}"}
    for path in (f"/tasks/{world.tasks[0]['_id']}", "/tasks", "/nowhere/secret", "/healthz"):
        world.client.get(path, headers=headers)
    told = read(world)
    routes = {dict(labels).get("route") for _, labels in told}
    assert routes >= {"/tasks/{id}", "/tasks", "/healthz", "none"}
    assert not any("secret" in str(one) for one in told)


def test_refusals_and_claims_are_counted(world: World):
    worker = {"Authorization": f"Bearer {world.tokens['worker']}"}
    assert world.client.get("/tasks").status_code == 401
    bad = {"Authorization": "Bearer nonsense"}
    assert world.client.get("/tasks", headers=bad).status_code == 401
    body = {"host": "h", "resources": {"cores": 8, "memory": "8 GiB"}}
    made = world.client.post("/workers", json=body, headers=worker).json
    alice = {"Authorization": f"Bearer {world.tokens['alice']}"}
    task = {"command": "true", "state": "available"}
    world.client.post("/tasks", json=[task] * 5, headers=alice)
    for _ in range(2):
        asked = {"worker": made["_id"], "max": 8}
        items = world.client.post("/tasks/claim", json=asked, headers=worker).json["_items"]
    assert items == []
    told = read(world)
    assert value(told, "banyan_auth_failures_total", reason="missing") == 1
    assert value(told, "banyan_auth_failures_total", reason="wrong") == 1
    assert value(told, "banyan_errors_total", word="unauthenticated") == 2
    assert value(told, "banyan_claims_total", result="won") == 1
    assert value(told, "banyan_claims_total", result="empty") == 1
    assert value(told, "banyan_claim_tasks_bucket", le="3") == 1
    assert value(told, "banyan_claim_tasks_bucket", le="10") == 2
    assert value(told, "banyan_claim_tasks_sum") == 5
    assert value(told, "banyan_resources", resource="cores", use="capacity") == 8
    assert value(told, "banyan_resources", resource="cores", use="reserved") == 5
    assert value(told, "banyan_workers", mode="active") == 1


def test_how_long_the_next_in_line_has_waited(world: World):
    task = {"owner": "alice", "state": "available", "queue": "q", "outcome": None, "seq": 1,
            "wake_at": None}  # fmt: skip
    now = datetime.now(UTC)
    waiting = [
        {**task, "shape": "a", "priority": 0, "available_since": now - timedelta(hours=2)},
        {**task, "shape": "b", "priority": 0, "available_since": now - timedelta(hours=3)},
        {**task, "shape": "c", "priority": 0, "available_since": now - timedelta(hours=9),
         "wake_at": now + timedelta(hours=1)},
    ]  # fmt: skip
    assert value(read(world), "banyan_oldest_available_seconds") == 0
    world.store["tasks"].insert_many(waiting)
    told = value(read(world), "banyan_oldest_available_seconds")
    assert told == pytest.approx(3 * 3600, abs=600)


def test_it_is_worked_out_once_a_second_at_the_most(world: World):
    headers = {"Authorization": f"Bearer {world.tokens['operator']}"}
    first = world.client.get("/metrics", headers=headers).data
    world.fill(random.Random(7), 10)
    assert world.client.get("/metrics", headers=headers).data == first
    eventually(lambda: world.client.get("/metrics", headers=headers).data != first)


def test_it_needs_an_operator_or_the_token_for_it(world: World, monkeypatch: pytest.MonkeyPatch):
    def status(token: str, path: str = "/metrics") -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return int(world.client.get(path, headers=headers).status_code)

    assert world.client.get("/metrics").status_code == 401
    assert [status(world.tokens[role]) for role in ("operator", "alice", "worker")] == [
        200, 403, 403,
    ]  # fmt: skip
    assert status("") == 401
    monkeypatch.setattr(knobs(), "METRICS_TOKEN", "scrape-me")
    assert status("scrape-me") == 200
    assert status("scrape-m") == 401
    assert status("scrape-me", "/tasks") == 401


def test_upkeep_hands_on_what_is_counted_and_times_its_duties(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("banyan.server.upkeep.loop.COUNTS_SECONDS", 0.1)
    upkeep = Upkeep(world.uri, world.context.signals)
    upkeep.start()
    try:
        with MongoClient[Any](world.uri) as client:
            metrics = client.get_default_database()["metrics"]
            eventually(
                lambda: metrics.find_one({"_id": 'banyan_upkeep_seconds_sum{duty="tally"}'}),
                seconds=30,
            )
    finally:
        upkeep.stop()
    told = read(world)
    for duty in ("leases", "releases", "delays", "tally", "sample"):
        assert (value(told, "banyan_upkeep_seconds_count", duty=duty) or 0) > 0


def test_labels_are_written_as_the_format_wants_them():
    assert series("a", {}) == "a"
    assert series("a", {"y": 'q"\\\n', "x": "1"}) == 'a{x="1",y="q\\"\\\\\\n"}'
    counters = Counters()
    counters.observe("h", 0.1, (0.1, 1.0))
    counters.observe("h", 0.11, (0.1, 1.0))
    counters.observe("h", 7, (0.1, 1.0))
    assert counters.drain() == {
        'h_bucket{le="0.1"}': 1, 'h_bucket{le="1"}': 1, 'h_bucket{le="+Inf"}': 1, "h_sum": 7.21,
    }  # fmt: skip
    assert counters.drain() == {}
