"""A task's future by itself: what a fork has of it, and what a program says of it at its end."""

import gc
import os
import threading
import weakref
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

from banyan.client import ending
from banyan.client.futures import TaskFuture
from banyan.client.ids import new_id
from banyan.errors import BanyanError
from tests.harness.forks import in_fork

MINE = os.getpid()


@pytest.fixture(autouse=True)
def nothing_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_unheard", ending._Unheard())


@pytest.fixture
def future() -> TaskFuture:
    return TaskFuture(new_id(), "", lambda future: False)


def told_in_fork(future: TaskFuture, begin: Callable[[Callable[[], Any]], Any]) -> Any:
    """What it says in a fork while another thread here is in the midst of `begin(read)`."""
    reads, go_on = threading.Event(), threading.Event()

    def read() -> str:
        if os.getpid() == MINE:
            reads.set()
            go_on.wait(60)
        return "result"

    thread = threading.Thread(target=begin, args=[read])
    thread.start()
    assert reads.wait(20)
    try:
        return in_fork(lambda: _told(future))
    finally:
        go_on.set()
        thread.join()


def _told(future: TaskFuture) -> str:
    done, _ = futures.wait([future], 10)
    try:
        return str(future.result(10)) if done else "open"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def test_a_fork_reads_what_a_thread_of_its_parent_was_reading(future: TaskFuture) -> None:
    def begin(read: Callable[[], Any]) -> None:
        future.succeed(read)
        future.result()

    assert told_in_fork(future, begin) == "result"
    assert future.result(10) == "result"


def test_what_was_just_being_settled_is_the_parents(future: TaskFuture) -> None:
    called: list[int] = []
    future.add_done_callback(lambda _: called.append(os.getpid()))
    assert "fork" in told_in_fork(future, future.succeed)
    assert (future.result(10), called) == ("result", [MINE])


@pytest.mark.parametrize("is_done", [True, False])
def test_a_fork_has_no_locks_of_threads_that_it_has_not(future: TaskFuture, is_done: bool) -> None:
    if is_done:
        future.succeed(lambda: "result")

    def begin(read: Callable[[], Any]) -> None:
        with future._condition:
            read()

    told = told_in_fork(future, begin)
    assert told == "result" if is_done else "ask it there" in told


def test_what_was_just_being_cancelled_is_so_in_a_fork(future: TaskFuture) -> None:
    futures.Future.cancel(future)
    assert in_fork(lambda: _told(future)) == "CancelledError: "


def test_what_was_not_stored_and_not_asked_for_is_counted(future: TaskFuture) -> None:
    other, third = (TaskFuture(new_id(), "", lambda future: False) for _ in range(2))
    for number, one in enumerate([future, other, third]):
        one.refuse(BanyanError("invalid", f"error {number}"))
    future.exception()
    future.exception()

    def in_child() -> Any:
        own = TaskFuture(new_id(), "", lambda future: False)
        own.refuse(BanyanError("invalid", "own error"))
        other.exception()
        return ending._unheard.take()

    assert in_fork(in_child) == [1, "own error"]
    assert ending._unheard.take() == (2, "error 0")
    assert ending._unheard.take()[0] == 0


def test_what_was_not_stored_is_not_kept_for_the_end(future: TaskFuture) -> None:
    error = BanyanError("invalid", "wrong")
    future.refuse(error)
    kept = weakref.ref(error)
    del error, future._exception
    gc.collect()
    assert kept() is None
