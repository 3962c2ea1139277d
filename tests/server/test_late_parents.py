"""A parent that ends while a child of it is being stored: the child is stored as it is then."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from banyan.server.store import edges
from tests.server.explained import END, Bench, Item


@pytest.fixture(scope="module")
def bench(module_database: str) -> Iterator[Bench]:
    made = Bench(module_database)
    yield made
    made.store.close()


def end(bench: Bench, items: Sequence[Item], exit_status: str) -> None:
    reports = [
        {
            "_id": item["_id"],
            "state": "terminated",
            "update_execution_data": {**END, "token": item["token"], "exit_status": exit_status},
        }
        for item in items
    ]
    bench.ask("worker", "PATCH", "/tasks", reports)


@pytest.mark.parametrize(
    ("ended", "exit_status", "state", "waits_for"),
    [
        (1, "success", "inactive", 1),
        (2, "success", "available", 0),
        (1, "failure (1)", "cancelled", 1),
    ],
)
def test_what_a_parent_is_when_the_child_is_stored_counts(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    ended: int,
    exit_status: str,
    state: str,
    waits_for: int,
) -> None:
    queue = f"{ended}-{state}"
    parents = bench.submit(2, queue=queue)
    items = bench.claim(bench.worker(), 2, queues=[queue])
    link_parents, ending = edges.link_parents, [items[:ended]]

    def too_late(*arguments: Any) -> Any:
        while ending:  # after they were looked at, and before anything is written
            end(bench, ending.pop(), exit_status)
        return link_parents(*arguments)

    monkeypatch.setattr(edges, "link_parents", too_late)
    task = {"command": "true", "after": parents, "state": "available"}
    child = bench.ask("provider", "POST", "/tasks", task)["_id"]
    stored = bench.ask("provider", "GET", f"/tasks/{child}")
    assert (stored["state"], stored["pending_dependency_count"]) == (state, waits_for)
    if state == "inactive":
        end(bench, items[ended:], "success")
        assert bench.ask("provider", "GET", f"/tasks/{child}")["state"] == "available"
    if state != "cancelled":
        for parent in parents:
            shown = bench.ask("provider", "GET", f"/tasks/{parent}")
            assert shown["continuations"] == [child]
