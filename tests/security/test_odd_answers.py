"""What one callable answers, and what is called back for it, touches no other future.

An Executor with a server that says just what a test wants: the answers are unpacked, read and
settled by the threads that serve all its futures.
"""

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from banyan import Executor
from banyan.client import call, calls, ending, results
from banyan.client import executor as module
from banyan.client.futures import TaskFailed, TaskFuture
from banyan.errors import BanyanError
from tests.harness import eventually


class Server:
    """In the place of a Client and of its Watch."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.cancelled: list[list[str]] = []
        self.takes = threading.Event()
        self.takes.set()
        self.ends: queue.Queue[dict[str, Any] | BaseException] = queue.Queue()
        self.answers: dict[str, bytes] = {}
        self.transport = SimpleNamespace(request=lambda *_, **__: SimpleNamespace(body={}))

    def clone(self) -> "Server":
        return self

    def submit(self, tasks: Sequence[dict[str, Any]]) -> None:
        self.takes.wait(20)
        if any(task["name"] in self.refused for task in tasks):
            raise BanyanError("invalid", "wrong")

    def cancel(self, ids: Iterable[str]) -> None:
        self.cancelled.append(list(ids))

    def log(self, id: str) -> bytes:
        return b""

    def ended(self, open_ids: Callable[[], set[str]], seconds: float) -> list[dict[str, Any]]:
        try:
            one = self.ends.get(timeout=0.05)
        except queue.Empty:
            return []
        if isinstance(one, BaseException):
            raise one
        return [one]

    def end(self, future: TaskFuture, answer: bytes | None = None, **more: Any) -> None:
        """It is told that this task has ended; answer: of a callable."""
        if answer is not None:
            self.answers[future.task_id] = answer
        end = {"state": "terminated", "outcome": "success", "attempt_count": 1}
        self.ends.put({"_id": future.task_id, **end, **more})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(ending, "_unheard", ending._Unheard())
    monkeypatch.setattr(module, "Watch", lambda *_: made)
    monkeypatch.setattr(results, "output_of", lambda _, task, *__: made.answers[task["_id"]])
    return made


@pytest.fixture
def executor(server: Server) -> Iterator[Executor]:
    made = Executor(server)  # type: ignore[arg-type]
    yield made
    made.shutdown(wait=False)


# --- Answers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frozen(Exception):
    pass


@dataclass(frozen=True, slots=True)
class FrozenWithSlots(Exception):
    pass


class Text(Exception):
    def __reduce__(self) -> Any:
        return str, ("a text",)


class Remade(Exception):
    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__("words")
        self.make = make

    def __reduce__(self) -> Any:
        return called, (self.make,)


class Uncaused(Exception):
    __cause__ = property(lambda _: sys.exit("no cause"))  # type: ignore[assignment]


class Silent(StopIteration):
    def __str__(self) -> str:
        sys.exit("no words")


class Untrue(Exception):
    def __bool__(self) -> bool:
        return False


class Liar:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        sys.exit("no class")


class Undecided:
    def __bool__(self) -> bool:
        sys.exit("neither")


def called(make: Callable[[], Any]) -> Any:
    return make()


def ends() -> None:
    sys.exit("while it was unpacked")


def interrupts() -> None:
    raise KeyboardInterrupt


def recurses() -> None:
    recurses()


def is_away() -> None:
    raise BanyanError("unavailable", "as if the server were away")


def cannot_be_told() -> None:
    raise Silent


def raised(value: Any) -> bytes:
    return calls.pack((False, value))


ODD: list[tuple[Callable[[], bytes], type[BaseException]]] = [
    (lambda: raised(Frozen()), Frozen),
    (lambda: raised(FrozenWithSlots()), FrozenWithSlots),
    (lambda: raised(Uncaused()), Uncaused),
    (lambda: raised(Untrue()), Untrue),
    (lambda: raised(SystemExit(3)), SystemExit),
    (lambda: raised(Text()), RuntimeError),
    (lambda: raised(Silent()), RuntimeError),
    (lambda: raised(None), RuntimeError),
    (lambda: raised(Remade(Liar)), RuntimeError),
    (lambda: raised(SystemExit), RuntimeError),
    *(
        (lambda make=make: raised(Remade(make)), TaskFailed)
        for make in (ends, interrupts, recurses, is_away, cannot_be_told)
    ),
    (lambda: calls.pack((Undecided(), 1)), TaskFailed),
    (lambda: calls.pack(5), TaskFailed),
    (lambda: b"no answer", TaskFailed),
    (lambda: b"", TaskFailed),
]


@pytest.mark.parametrize(("answer", "error"), ODD)
def test_whatever_an_answer_is_the_others_go_on(
    server: Server, executor: Executor, answer: Callable[[], bytes], error: type[BaseException]
) -> None:
    command, callable, odd = executor.submit("x"), executor.submit(max, 1), executor.submit(max, 2)
    server.end(odd, answer())
    told = odd.exception(20)
    assert type(told) is error
    assert odd.standing() == "failed"
    if error is not TaskFailed and error is not Uncaused:
        assert isinstance(told.__cause__, TaskFailed)
    with pytest.raises(error):
        odd.result(0)
    assert not command.done()
    assert not callable.done()
    server.end(callable, calls.pack((True, "returned")))
    server.end(command, result=7)
    assert (callable.result(20), command.result(20)) == ("returned", 7)


def test_a_document_that_makes_no_sense_is_of_one_task(server: Server, executor: Executor) -> None:
    other, odd = executor.submit("x"), executor.submit("y")
    server.ends.put({"_id": odd.task_id, "state": "terminated"})
    assert isinstance(odd.exception(20), KeyError)
    server.end(other, result=7)
    assert other.result(20) == 7


def test_where_nothing_is_heard_any_more_all_are_told(server: Server, executor: Executor) -> None:
    waiting = [executor.submit("x"), executor.submit(max, 1)]
    away = BanyanError("unavailable", "the server is away")
    eventually(lambda: server.ends.put(away) or all(one.done() for one in waiting), 20)
    assert [str(one.exception(20)) for one in waiting] == ["the server is away"] * 2


# --- What is called back ------------------------------------------------------------------


def test_a_callback_that_raises_what_a_callable_did_ends_no_thread(
    server: Server, executor: Executor
) -> None:
    """As `future.result()` does where that one has called `sys.exit`."""
    others, odd = [executor.submit("x"), executor.submit(max, 1)], executor.submit(max, 2)
    odd.add_done_callback(lambda future: future.result())
    cancelled = executor.submit("x")
    cancelled.add_done_callback(lambda future: sys.exit(3))
    server.end(odd, raised(SystemExit(3)))
    server.ends.put({"_id": cancelled.task_id, "state": "cancelled"})
    assert isinstance(odd.exception(20), SystemExit)
    assert futures.wait([cancelled], 20).done == {cancelled}
    server.end(others[0], result=7)
    server.end(others[1], calls.pack((True, 8)))
    assert [one.result(20) for one in others] == [7, 8]


def test_nor_does_one_of_a_task_that_was_refused(server: Server, executor: Executor) -> None:
    server.refused = {"odd"}
    server.takes.clear()
    refused = [executor.submit("x", name="odd") for _ in range(2)]
    for one in refused:
        one.add_done_callback(lambda future: sys.exit(3))
    other = executor.submit("x", name="good")
    server.takes.set()
    server.end(other, result=7)
    assert other.result(20) == 7
    assert [str(one.exception(20)) for one in refused] == ["wrong"] * 2
    later = executor.submit("x", name="good")
    server.end(later, result=8)
    assert later.result(20) == 8


def test_nor_does_one_keep_the_others_from_being_cancelled(
    server: Server, executor: Executor
) -> None:
    server.takes.clear()
    first = executor.submit("x")  # is being sent; the others gather
    eventually(lambda: executor._sender is not None and not executor._sender._gathered)
    waiting = [executor.submit("x") for _ in range(3)]
    for one in waiting:
        one.add_done_callback(lambda future: sys.exit(3))
    with pytest.raises(SystemExit):
        executor._cancel_all([one.task_id for one in waiting])
    assert futures.wait(waiting, 20).done == {*waiting}
    assert server.cancelled == [[]]
    server.takes.set()
    server.end(first, result=7)
    assert first.result(20) == 7


# --- The task's side -----------------------------------------------------------------------


class Loud(Exception):
    def __str__(self) -> str:
        sys.exit("no words")


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        sys.exit("not sent")


@pytest.mark.parametrize(
    ("error", "words"),
    [(Text("x"), "Text: x"), (Unsendable("x"), "Unsendable: x"), (Remade(ends), "Remade: words"),
     (type("Both", (Loud, Unsendable), {})(), "Both")],
)  # fmt: skip
def test_what_cannot_be_made_again_is_told_in_words(error: BaseException, words: str) -> None:
    returned, told = calls.answer_in(call._packed_error(error, call._Answer("")))
    assert (returned, type(told), str(told)) == (False, RuntimeError, words)
    assert call._exit_code(error) == 1
