"""New tasks on their way: what one of them is must cost no other one, nor leave anybody waiting."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from banyan import Executor
from banyan.client import ending
from banyan.client.api import Client
from banyan.client.sending import Sender
from banyan.errors import BanyanError

Task = dict[str, Any]
COUNT = 12


class Server:
    """In the place of a Client: `refuse` raises for what it does not take."""

    def __init__(self, refuse: Callable[[list[str]], None]) -> None:
        self.refuse = refuse
        self.asked = 0
        self.stored: list[str] = []

    def submit(self, tasks: list[Task]) -> None:
        """All of them, or none."""
        self.asked += 1
        ids = [task["_id"] for task in tasks]
        self.refuse(ids)
        self.stored += ids


@pytest.fixture(autouse=True)
def nothing_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_unheard", ending._Unheard())


def sent(refuse: Callable[[list[str]], None], *more: Task) -> tuple[Server, dict[str, Any], Sender]:
    """`COUNT` tasks that are sent together, and the ids of those that were refused: why."""
    server, refused = Server(refuse), dict[str, Any]()
    sender = Sender(server, refused.__setitem__)  # type: ignore[arg-type]
    for task in [*({"_id": str(number)} for number in range(COUNT)), *more]:
        sender.put(task)
    sender.start()
    if not more:
        sender.end()
    sender.join(20)
    assert not sender.is_alive()
    return server, refused, sender


ABOUT_ONE = [
    *(BanyanError(word, "of one") for word in ("invalid", "dedupe_mismatch", "already_exists")),
    *(BanyanError(word, "of one") for word in ("bad_request", "too_large", "not_found")),
    BanyanError("forbidden", "of one", {"3": {"queue": "not yours"}}),
    AttributeError("'int' object has no attribute 'isascii'"),
]


@pytest.mark.parametrize("error", ABOUT_ONE, ids=repr)
def test_the_others_do_not_suffer_for_what_one_task_is(error: Exception) -> None:
    def refuse(ids: list[str]) -> None:
        if {"3", "10"} & {*ids}:
            raise error

    server, refused, _ = sent(refuse)
    assert refused == {"3": error, "10": error}
    assert sorted(server.stored) == sorted({*map(str, range(COUNT))} - refused.keys())


@pytest.mark.parametrize(
    "word",
    ["unavailable", "unauthenticated", "token_missing", "forbidden", "too_many_requests",
     "quota_exceeded", "internal"],
)  # fmt: skip
def test_what_all_of_them_would_hear_is_asked_once(word: str) -> None:
    def refuse(ids: list[str]) -> None:
        raise BanyanError(word, "of all")

    server, refused, _ = sent(refuse)
    assert (server.asked, len(refused)) == (1, COUNT)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, None])
def test_whatever_ends_the_thread_is_told_to_all_that_were_left(end: type | None) -> None:
    def refuse(ids: list[str]) -> None:
        if end:
            raise end

    _, refused, sender = sent(refuse, {"_id": "odd", "env": None if end else date.today()})
    assert refused.keys() == {*map(str, range(COUNT)), "odd"}
    assert sender.unsent() == set()
    assert not sender.take_back("odd")
    with pytest.raises(RuntimeError, match="can't be sent any more"):
        sender.put({"_id": "late"})


@pytest.mark.parametrize("wrong", [{"env": {"N": date(2020, 1, 1)}}, {"retain": float("inf")}])
def test_what_is_no_json_is_refused_to_who_submits_it(wrong: dict[str, Any]) -> None:
    executor = Executor(Client("http://127.0.0.1:9", "t", retry_seconds=0))
    with pytest.raises(BanyanError, match="cannot be sent as JSON") as refused:
        executor.submit(["true"], **wrong)
    assert refused.value.word == "invalid"
    executor.shutdown()
