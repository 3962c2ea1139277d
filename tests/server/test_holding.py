"""Requests that wait: held without a thread, woken by a change, and in nobody's way."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from banyan.config import knobs
from banyan.preferences import wait_seconds
from banyan.server.crowd import Request
from tests.harness import eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def server(things: Things) -> Iterator[Served]:
    with served(things, account_of=lambda header: "somebody") as running:
        yield running


def ask(server: Served, seconds: float | None, since: int = 0) -> requests.Response:
    headers = {"Authorization": "Bearer known"}  # of strangers few may wait for a thread
    if seconds is not None:
        headers["Prefer"] = f"wait={seconds}"
    return requests.get(f"{server.url}/thing?{since}", headers=headers, timeout=60)


def change(server: Served, things: Things, topic: str = "task:1") -> None:
    things.version += 1
    server.hub.signal(topic)


def test_who_does_not_ask_to_wait_is_answered_at_once(server: Served, things: Things) -> None:
    answer = ask(server, None)
    assert answer.json() == 0
    assert "Banyan-Wait" not in answer.headers
    assert things.asked == 1


def test_what_is_there_already_is_not_waited_for(server: Served, things: Things) -> None:
    things.version = 1
    began = time.monotonic()
    assert ask(server, 30).json() == 1
    assert time.monotonic() - began < 5


def test_a_change_wakes_within_100_milliseconds(server: Served, things: Things) -> None:
    with ThreadPoolExecutor(1) as pool:
        late = []
        for since in range(10):
            answer = pool.submit(ask, server, 30, since)
            eventually(lambda: server.hub.waiting == 1)
            began = time.monotonic()
            change(server, things)
            assert answer.result(10).json() == since + 1
            late.append(time.monotonic() - began)
    assert sorted(late)[5] < 0.1
    assert things.asked == 20


def test_when_time_is_up_the_last_answer_goes_out(server: Served, things: Things) -> None:
    began = time.monotonic()
    answer = ask(server, 0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert (answer.status_code, answer.json()) == (200, 0)
    assert "Banyan-Wait" not in answer.headers
    assert things.asked == 1


def test_a_change_that_means_nothing_is_waited_past(server: Served, things: Things) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, 30)
        eventually(lambda: server.hub.waiting == 1)
        server.hub.signal("task:1")
        eventually(lambda: things.asked == 2)
        assert not answer.done()
        change(server, things)
        assert answer.result(10).json() == 1


def test_no_wait_is_longer_than_allowed(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs(), "WAIT_SECONDS_MAX", 0.2)
    began = time.monotonic()
    ask(server, 30)
    assert time.monotonic() - began < 5


def test_for_a_client_that_has_gone_nothing_is_asked_again(server: Served, things: Things) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET /thing?0 HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n")
        eventually(lambda: server.hub.waiting == 1)
    eventually(lambda: server.hub.waiting == 0)
    change(server, things)
    assert ask(server, None).json() == 1
    assert things.asked == 2


def test_who_goes_between_the_change_and_the_question_is_not_asked_for(
    server: Served, things: Things
) -> None:
    things.topics = "tasks"  # after a look there is a pause before the next
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET /thing?0 HTTP/1.1\r\nHost: x\r\nPrefer: wait=30\r\n\r\n")
        eventually(lambda: server.hub.waiting == 1)
        server.hub.signal("tasks")
        eventually(lambda: things.asked == 2, every_seconds=0.001)
        server.hub.signal("tasks")
    eventually(lambda: server.hub.waiting == 0)
    assert things.asked == 2


def test_five_hundred_who_wait_are_in_nobodys_way(server: Served, things: Things) -> None:
    with ThreadPoolExecutor(500) as pool:
        answers = [pool.submit(ask, server, 60) for _ in range(500)]
        eventually(lambda: server.hub.waiting == 500, 30)
        took = []
        for _ in range(50):
            began = time.monotonic()
            assert ask(server, None).status_code == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[25] < 0.1
        change(server, things)
        began = time.monotonic()
        assert ask(server, None).status_code == 200  # does not stand behind those 500
        assert time.monotonic() - began < 2
        assert all(answer.result(20).json() == 1 for answer in answers)


def test_a_crowd_that_waits_for_the_same_is_answered_by_few_questions(
    server: Served, things: Things
) -> None:
    with ThreadPoolExecutor(200) as pool:
        answers = [pool.submit(ask, server, 60) for _ in range(200)]
        eventually(lambda: server.hub.waiting == 200, 30)
        asked = things.asked
        change(server, things)
        assert all(answer.result(20).json() == 1 for answer in answers)
    assert 1 <= things.asked - asked <= 20


@pytest.mark.parametrize("differs", ["HTTP_AUTHORIZATION", "HTTP_IF_NONE_MATCH", "QUERY_STRING"])
def test_who_asks_for_another_thing_or_as_another_has_an_answer_of_its_own(differs: str) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/thing", "QUERY_STRING": "0"}
    one = Request({**environ, differs: "a"}, b"", 1)
    other = Request({**environ, differs: "b"}, b"", 1)
    assert one.same() != other.same()
    elsewhere = Request({**environ, differs: "a", "REMOTE_ADDR": "10.0.0.2"}, b"", 1)
    assert one.same() == elsewhere.same()
    assert Request({**environ, "REQUEST_METHOD": "POST"}, b"", 1).same() is None


def test_a_change_during_the_answer_to_a_crowd_is_not_lost(server: Served, things: Things) -> None:
    """Each of them is asked for again, until its answer is new."""
    slow = threading.Event()
    serve = things.serve_thing

    def hesitant(environ: dict[str, Any], start: Any) -> Any:
        answer = serve(environ, start)
        if things.asked > 50:
            slow.wait(10)
        return answer

    things.serve_thing = hesitant  # type: ignore[method-assign]
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(ask, server, 60) for _ in range(50)]
        eventually(lambda: server.hub.waiting == 50, 30)
        server.hub.signal("task:1")  # nothing has changed yet
        eventually(lambda: things.asked > 50)
        change(server, things)
        slow.set()
        assert all(answer.result(20).json() == 1 for answer in answers)


def test_a_collection_that_changes_all_the_time_is_looked_at_ten_times_a_second(
    server: Served, things: Things
) -> None:
    things.topics = "tasks"
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, 0.5)
        eventually(lambda: server.hub.waiting == 1)
        while not answer.done():
            server.hub.signal("tasks")
    # One at the beginning, one at the first signal, one at the end; a busy machine waits longer.
    assert 3 <= things.asked <= 3 + 10 * (time.monotonic() - began)


def test_work_is_offered_to_one_after_the_other(server: Served, things: Things) -> None:
    things.topics = "available"
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(ask, server, 60) for _ in range(20)]
        eventually(lambda: server.hub.waiting == 20)
        change(server, things, "available:a")
        eventually(lambda: server.hub.waiting == 19)
        assert things.asked == 21
        for name in range(19):
            server.hub.signal(f"available:{name}")
        assert all(answer.result(10).json() == 1 for answer in answers)


def test_at_the_end_who_waits_is_answered_at_once(things: Things) -> None:
    with ThreadPoolExecutor(1) as pool:
        with served(things) as server:
            answer = pool.submit(ask, server, 60)
            eventually(lambda: server.hub.waiting == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert answer.result(1).json() == 0
        assert answer.result(1).headers["Connection"] == "close"  # the connection ends as well


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=30", 30),
        ("return=minimal, wait=5", 5),
        ('respond-async; wait="7"', 7),
        ("WAIT = 3", 3),
        ("wait=0.25", 0.25),
        ("wait=99999", 60),
        ("wait=-1", 0),
        ("wait=x", 0),
        ("await=5", 0),
        ('foo="a, wait=5"', 0),
        ("wait=5, wait=9", 5),
        ('"wait=5', 0),
        ("wait=5x", 0),
        ("", 0),
    ],
)
def test_the_preference_is_read_as_rfc_7240_writes_it(prefer: str, seconds: float) -> None:
    assert wait_seconds(prefer, 60) == seconds


TASK = "6b031af2107e4073d8b4d21a"
KNOWN = {"Prefer": "wait=30", "If-None-Match": '"v1"', "Authorization": "Bearer x"}


def new_task(server: Served) -> None:
    server.hub.watched = True
    server.hub.signal(f"task:{TASK}", version="v1")


def ask_for_task(
    server: Served, headers: dict[str, str] = KNOWN, query: str = ""
) -> requests.Response:
    return requests.get(f"{server.url}/tasks/{TASK}{query}", headers=headers, timeout=60)


def test_who_has_made_a_task_waits_for_it_without_a_question(
    server: Served, things: Things
) -> None:
    new_task(server)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask_for_task, server)
        eventually(lambda: server.hub.waiting == 1)
        assert things.asked == 0
        server.hub.signal(f"task:{TASK}")
        assert answer.result(timeout=30).json()["PATH_INFO"] == f"/tasks/{TASK}"
        assert things.asked == 1


def test_when_the_time_is_up_the_question_is_put(server: Served, things: Things) -> None:
    new_task(server)
    assert ask_for_task(server, {**KNOWN, "Prefer": "wait=0.05"}).status_code == 200
    assert things.asked == 1


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({**KNOWN, "If-None-Match": '"v0"'}, ""),
        ({**KNOWN, "Authorization": None}, ""),
        ({**KNOWN, "Prefer": "return=minimal"}, ""),
        (KNOWN, "?projection={}"),
        (KNOWN, "/attempts"),
    ],
)
def test_all_others_are_answered_by_the_application(
    server: Served, headers: dict[str, str], query: str
) -> None:
    new_task(server)
    began = time.monotonic()
    assert ask_for_task(server, headers, query).status_code == 200
    assert time.monotonic() - began < 20


def test_who_comes_after_the_change_does_not_wait_for_it(server: Served) -> None:
    new_task(server)
    server.hub.signal(f"task:{TASK}")
    began = time.monotonic()
    assert ask_for_task(server).status_code == 200
    assert time.monotonic() - began < 20
