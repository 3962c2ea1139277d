"""A server that fails at one task for ever, or answers nonsense: the worker goes on, and ends."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from bson import ObjectId

from banyan.server.store.mongo import Store
from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.proxy import Proxy, _message

FAILED = {"_status": "ERR", "_error": {"code": 500, "word": "internal", "message": "it fails"}}


class Liar(Proxy):
    """Between workers and server; `answer` says what it answers itself, or None."""

    def __init__(self, url: str) -> None:
        self.answer: Callable[[bytes], tuple[int, bytes] | None] = lambda request: None
        self.lies = 0
        super().__init__(url)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            try:
                while request := _message(client):
                    lie = self.answer(request)
                    if lie:
                        self.lies += 1
                        client.sendall(_response(*lie))
                        continue
                    server.sendall(request)
                    answer = self._answer(client, server)
                    if not answer:
                        return
                    client.sendall(answer)
            except OSError:
                return


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def liar(crew: Crew) -> Iterator[Liar]:
    own = Liar(crew.server.url)
    crew.url = own.url
    yield own
    own.answer = lambda request: None
    own.close()


def test_one_task_at_which_the_server_fails_holds_up_no_other_nor_the_end_of_the_worker(
    crew: Crew, liar: Liar
):
    poison: list[bytes] = []

    def fail(request: bytes) -> tuple[int, bytes] | None:
        is_report = request.startswith(b"PATCH /tasks ")
        hit = is_report and any(one in request for one in poison)
        return (500, json.dumps(FAILED).encode()) if hit else None

    liar.answer = fail
    worker = crew.worker("one", "--cores", "4", "--memory", "4 GiB")
    crew.registered()
    bad = crew.submit("echo bad", state="inactive")
    poison.append(bad.encode())
    crew.server.provider.patch(f"tasks/{bad}", {"state": "available"})
    eventually(lambda: liar.lies)
    others = [crew.submit("true") for _ in range(20)]
    for task in others:
        assert crew.ended(task, seconds=40)["outcome"] == "success"
    assert crew.state_of(bad) == "running"
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_a_claimed_task_that_cannot_be_run_fails_alone(crew: Crew, module_database: str) -> None:
    """Otherwise it would keep from starting all that was claimed with it."""
    bad = crew.submit("true")
    with contextlib.closing(Store(module_database)) as store:
        store["tasks"].update_one({"_id": ObjectId(bad)}, {"$set": {"command": None}})
    others = [crew.submit("true") for _ in range(3)]
    crew.worker("one", "--cores", "4")
    for task in others:
        assert crew.ended(task)["outcome"] == "success"
    ended = crew.ended(bad)
    assert (ended["outcome"], crew.statuses(bad)) == ("failure", ["failure (126)"])
    assert "makes no sense" in ended["reason"]


TASK = {
    "_id": "5" * 24, "attempt_id": "4" * 24, "token": "t", "attempt_count": 1, "command": "true",
    "granted_resources": {"cores": 1, "memory_bytes": 1},
}  # fmt: skip
BEAT = {"mode": "active", "cancel": [], "lost": [], "wanted": {"number": 0, "attempts": []}}
NONSENSE = [
    json.dumps({**BEAT, "_id": "5" * 24, "lease_seconds": 1e300}).encode(),
    json.dumps({"_items": [{**TASK, "granted_resources": {"memory_bytes": 1}}]}).encode(),
    json.dumps({"_items": [{**TASK, "env": {"A": {"secret": [1]}}}]}).encode(),
    b'{"_items": []}',
    b'{"_items": [{"_status": "OK"}, {"_status": "OK"}, {"_status": "OK"}]}',
    b"[]",
    b"null",
    b"<html>",
    b"[" * 100_000,
    b'{"_items": {"lease_seconds": []}}',
]


@pytest.mark.parametrize("path", [b"PATCH /tasks ", b"POST /tasks/claim", b"POST /workers"])
def test_answers_that_make_no_sense_end_no_thread(crew: Crew, liar: Liar, path: bytes):
    """Each of them once; then the server answers as it should, and all that waits is done."""
    left = list(NONSENSE)
    lock = threading.Lock()

    def lie(request: bytes) -> tuple[int, bytes] | None:
        with lock:
            return (200, left.pop()) if left and request.startswith(path) else None

    liar.answer = lie
    worker = crew.worker("one", "--cores", "2")
    tasks = [crew.submit(f"echo {n}") for n in range(4)]
    for task in tasks:
        assert crew.ended(task, seconds=60)["outcome"] == "success"
        assert crew.statuses(task)[-1] == "success"
    eventually(lambda: not left, seconds=30)
    assert crew.ended(crew.submit("true"), seconds=30)["outcome"] == "success"
    worker.signal(signal.SIGTERM)
    assert worker.wait(60) == 0


@pytest.mark.parametrize("status", [404, 401, 502])
def test_a_proxy_that_answers_for_the_server_is_no_removal(crew: Crew, liar: Liar, status: int):
    crew.worker("one", "--cores", "1")
    crew.registered()
    task = crew.submit("echo ready; exec sleep 3")
    crew.says(task, b"ready")
    liar.answer = lambda request: (status, b"<html>no such site</html>")
    eventually(lambda: liar.lies > 3)
    liar.answer = lambda request: None
    assert crew.ended(task, seconds=30)["outcome"] == "success"
    assert crew.statuses(task) == ["success"]


def refusing(word: str, status: int) -> bytes:
    error = {"code": status, "word": word, "message": "headers may have 65536 bytes in all"}
    return json.dumps({"_status": "ERR", "_error": error}).encode()


def test_a_registration_that_somebody_else_has_refused_goes_on_with_the_server(
    crew: Crew, liar: Liar
):
    said = [("bad_request", 400), ("not_found", 404), ("too_many_requests", 429), ("invalid", 422)]

    def refuse(request: bytes) -> tuple[int, bytes] | None:
        if not said or not request.startswith(b"POST /workers "):
            return None
        word, status = said.pop()
        return status, refusing(word, status)

    liar.answer = refuse
    worker = crew.worker("one")
    crew.registered()
    assert not said
    task = crew.submit("true")
    assert crew.ended(task)["outcome"] == "success"
    assert worker.process.poll() is None


def test_a_report_that_came_when_there_were_too_many_requests_is_told_again(crew: Crew, liar: Liar):
    """By wrong tokens of others from the same address, say."""

    def refuse(request: bytes) -> tuple[int, bytes] | None:
        few = liar.lies < 3 and request.startswith(b"PATCH /tasks ")
        return (429, refusing("too_many_requests", 429)) if few else None

    liar.answer = refuse
    crew.worker("one")
    crew.registered()
    task = crew.submit("true")
    assert crew.ended(task)["outcome"] == "success"
    assert liar.lies == 3
    assert crew.statuses(task) == ["success"]
