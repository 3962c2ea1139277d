"""Contract §8: with the database away it is 503 with Retry-After, and no write is half done."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from banyan.server.embedded import PrivateMongo
from tests.contract.asking import make, new_id, read, refused
from tests.contract.playing import at_once
from tests.harness import Processes, Server, eventually, start_server


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[PrivateMongo]:
    """A MongoDB that may be stopped."""
    mongo = PrivateMongo(tmp_path / "mongo")
    mongo.start()
    yield mongo
    mongo.stop()


def test_database_away_is_503_with_retry_after_until_it_is_back(
    own_mongo: PrivateMongo, processes: Processes, tmp_path: Path
):
    server: Server = start_server(processes, tmp_path / "data", own_mongo.uri)
    task = make(server.provider)
    reads, writes = f"tasks/{task['_id']}", new_id()
    own_mongo.stop()
    requests = (
        ("GET", reads, None),
        ("GET", "tasks", None),
        ("POST", "tasks", {"_id": writes, "command": "true"}),
        ("PATCH", reads, {"name": "x"}),
        ("POST", f"{reads}/cancel", None),
        ("GET", "readyz", None),
    )
    for answer in at_once([partial(server.provider.request, *one) for one in requests]):
        refused(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert server.anonymous.get("healthz").status_code == 200
    own_mongo.start()
    eventually(lambda: server.provider.get(reads).status_code == 200, 30)
    assert read(server.provider, task)["_etag"] == task["_etag"]
    refused(server.provider.get(f"tasks/{writes}"), 404)


def test_it_is_not_ready_while_the_database_takes_no_writes(
    own_mongo: PrivateMongo, processes: Processes, tmp_path: Path
):
    server = start_server(processes, tmp_path / "data", own_mongo.uri)
    with own_mongo.member() as client:
        client.admin.command({"replSetStepDown": 3, "force": True})
    refused(server.anonymous.get("readyz"), 503, "unavailable")
    assert server.anonymous.get("healthz").status_code == 200
    eventually(lambda: server.anonymous.get("readyz").status_code == 200, 60)


def test_a_server_process_that_starts_while_the_database_is_away_answers_and_waits_for_it(
    own_mongo: PrivateMongo, processes: Processes, tmp_path: Path
):
    server = start_server(processes, tmp_path / "data", own_mongo.uri)
    own_mongo.stop()
    supervisor = server.started.pid
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    (before,) = map(int, children.read_text().split())
    os.kill(before, signal.SIGKILL)
    refused(server.provider.get("tasks"), 503, "unavailable")
    assert children.read_text().split() != [str(before)]
    own_mongo.start()
    eventually(lambda: server.provider.get("tasks").status_code == 200, 30)
    assert "ended" not in server.started.stderr.partition("again\n")[2], "it was started once"
