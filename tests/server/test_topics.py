"""What a held read is woken by: who names tasks is not woken by the others."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from bson import ObjectId

from banyan.server import queries
from banyan.server.edge import WAIT_HEADER
from tests.server.explained import Bench

ONE, TWO = str(ObjectId()), str(ObjectId())


@pytest.fixture(scope="module")
def bench(module_database: str) -> Iterator[Bench]:
    made = Bench(module_database)
    yield made
    made.store.close()


def topics(bench: Bench, path: str, **arguments: Any) -> set[str]:
    """What would wake a caller who knows the answer already."""
    headers = {"Authorization": f"Bearer {bench.tokens['provider']}", "Prefer": "wait=5"}
    known = bench.client.get(path, query_string=arguments, headers=headers).headers["ETag"]
    again = {**headers, "If-None-Match": known}
    answer = bench.client.get(path, query_string=arguments, headers=again)
    assert answer.status_code == 304
    return set(answer.headers[WAIT_HEADER].split(","))


@pytest.mark.parametrize(
    ("where", "woken_by"),
    [
        ({"_id": ONE}, {f"task:{ONE}"}),
        ({"_id": {"$in": [ONE, TWO]}, "state": "running"}, {f"task:{ONE}", f"task:{TWO}"}),
        ({"_id": {"$gte": ONE}}, {"tasks"}),
        ({"_id": {"$in": [ONE], "$ne": TWO}}, {"tasks"}),
        ({"_id": {"$in": []}}, {"tasks"}),
        ({"$or": [{"_id": ONE}, {"_id": TWO}]}, {"tasks"}),
        ({"state": "running"}, {"tasks"}),
        ({"_id": {"$in": [str(ObjectId()) for _ in range(1001)]}}, {"tasks"}),
    ],
)
def test_who_names_tasks_is_woken_by_them_alone(
    bench: Bench, where: dict[str, Any], woken_by: set[str]
) -> None:
    assert topics(bench, "/tasks", where=json.dumps(where)) == woken_by


def test_one_task_is_its_own_topic(bench: Bench) -> None:
    task = bench.submit(1)[0]
    assert topics(bench, f"/tasks/{task}") == {f"task:{task}"}


def test_what_is_no_id_names_nobody() -> None:
    assert queries.named_ids({"_id": "x"}) is None
    assert queries.named_ids({"_id": {"$in": [ObjectId(), "x"]}}) is None
