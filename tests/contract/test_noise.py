"""Noise: whatever comes in, the answer is JSON below 500, and the server goes on."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banyan.server.schemas.attempts import EXECUTION_DATA
from banyan.server.schemas.tasks import SCHEMA
from tests.contract.asking import make
from tests.contract.playing import Play
from tests.harness import Server

NOISE = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
OPERATORS = [
    "$and", "$or", "$nor", "$not", "$in", "$nin", "$all", "$gt", "$lt", "$eq", "$ne", "$size",
    "$exists", "$regex", "$where", "$expr", "$elemMatch", "$type", "$mod", "$each", "$slice",
]  # fmt: skip
PATHS = [
    "requested_resources.cpu_cores.count", "requested_resources.custom.a", "tags.a", "env.A",
    "continuations.0", "continuations.0.1", "tags.", "tags.$a", "_id", "_created", "_etag",
    "_links", "add_continuations", "remove_continuations", "update_execution_data", "worker",
    "targets",
]  # fmt: skip
NAMES = st.sampled_from([*SCHEMA, *EXECUTION_DATA, *OPERATORS, *PATHS]) | st.text(max_size=3)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(
        ["f" * 24, "running", "available", "terminated", "1 GiB", "PT1M", "2026-01-01"]
    )
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, JSON, max_size=4)


def fine(answer: Any) -> None:
    """Below 500, and of the shape that it should have."""
    assert answer.status_code < 500, answer.text[:1000]
    if answer.status_code >= 400:
        assert answer.json()["_status"] == "ERR"


@NOISE
@given(where=OBJECTS, projection=st.dictionaries(NAMES, st.just(1), max_size=2), sort=NAMES)
def test_any_filter_is_answered(server: Server, where: Any, projection: Any, sort: str):
    fine(server.provider.get("tasks", where=json.dumps(where)))
    fine(server.provider.get("tasks", projection=json.dumps(projection)))
    fine(server.provider.get("tasks", sort=sort))


@NOISE
@given(body=OBJECTS | JSON)
def test_any_body_of_a_provider_is_answered(server: Server, body: Any):
    task = make(server.provider)
    path = f"tasks/{task['_id']}"
    fine(server.provider.post("tasks", body))
    fine(server.provider.patch(path, body))
    fine(server.provider.patch("tasks", [{"_id": task["_id"], **body}] if isinstance(body, dict)
                               else body))  # fmt: skip
    for name in ("add_continuations", "cancel", "retry"):
        fine(server.provider.post(f"{path}/{name}", body))
        fine(server.provider.post(f"tasks/{name}", body))
    fine(server.provider.post("tasks/add_continuations", [{"targets": body, "values": body}]))


@NOISE
@given(body=OBJECTS | JSON, name=st.sampled_from(["claim", "steal", "release", "beat", "drain"]))
def test_any_body_of_a_worker_is_answered(server: Server, body: Any, name: str):
    play = Play(server)
    player = play.player()
    [task_id] = play.submit()
    [item] = player.claim()
    with_token = {**body, "token": item["token"]} if isinstance(body, dict) else body
    fine(server.worker.patch(f"tasks/{task_id}", {"update_execution_data": with_token}))
    fine(server.worker.patch(f"tasks/{task_id}", body))
    fine(server.worker.post(f"tasks/{task_id}/update_execution_data", with_token))
    fine(server.worker.post(f"workers/{player.id}/{name}", body))
    fine(server.worker.post(f"tasks/{name}", body))
    fine(server.worker.post("workers", body))
    if isinstance(body, dict):
        fine(server.worker.post(f"tasks/{name}", {**body, "worker": player.id}))
        fine(server.worker.patch(f"tasks/{task_id}", {**body, "update_execution_data": with_token}))
    fine(server.admin.post("accounts", body))
