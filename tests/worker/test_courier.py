"""The courier and a server that fails: what it cannot take does not hold up the rest."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.client.transport import Answer
from banyan.errors import BanyanError
from banyan.worker import answers, courier, reports
from banyan.worker.courier import Courier, Errand
from banyan.worker.mailbox import Done, Event, Mailbox, Reported
from banyan.worker.output import Reader
from tests.harness import eventually

END = {
    "state": "terminated", "exit_status": "success", "time_terminated": "2026-11-22T00:00:00.000Z",
    "cpu_seconds": 1.0, "peak_memory_bytes": 5, "reason": "because",
}  # fmt: skip

Say = Callable[[str, str, Any], Any]


class Told:
    """A connection to a server that answers as the test says; what it was asked is kept."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.asked: list[tuple[str, Any]] = []

    def held(self, method: str, path: str, body: Any, wait_seconds: float) -> Answer:
        self.asked.append((path, body))
        return Answer(200, self.say(method, path, body))

    def break_off(self) -> None:
        """Nothing is under way for long."""


class Stand:
    """A courier at work, and what the loop has heard."""

    def __init__(self, say: Say) -> None:
        self.connection = Told(say)
        self.mailbox = Mailbox()
        self.courier = Courier(self.connection, self.mailbox)  # type: ignore[arg-type]
        self.heard: list[Event] = []

    def follow(self, *names: str) -> None:
        for name in names:
            reader = Reader(Path("/does/not/exist"))
            self.courier.reports.follow(name, f"task {name}", f"token {name}", reader)

    def end(self, *names: str) -> None:
        for name in names:
            self.courier.reports.ended(name, END, None, 0)

    def events(self) -> list[Event]:
        self.heard += self.mailbox.take()
        return self.heard

    def ended(self) -> set[str]:
        """The attempts whose ends are told, or given up."""
        return {one for e in self.events() if isinstance(e, Reported) for one in e.attempts}

    def done(self) -> dict[str, str | None]:
        """The errands that are answered, and the word of a refusal."""
        found = [event for event in self.events() if isinstance(event, Done)]
        return {event.errand: event.error and event.error.word for event in found}

    def said_of(self, name: str) -> list[dict[str, Any]]:
        """The items that were sent about an attempt."""
        bodies = [body for path, body in self.connection.asked if path == "/tasks"]
        return [item for body in bodies for item in body if item["_id"] == f"task {name}"]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses a hundred times shorter: how often is what matters here."""
    monkeypatch.setattr(courier, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(courier, "_LONGEST_PAUSE_SECONDS", 0.05)
    pauses = dict.fromkeys(reports._PAUSES_SECONDS, (0.001, 0.05))
    monkeypatch.setattr(reports, "_PAUSES_SECONDS", pauses)


@pytest.fixture
def stand() -> Iterator[Callable[[Say], Stand]]:
    made: list[Stand] = []

    def start(say: Say) -> Stand:
        made.append(Stand(say))
        return made[-1]

    yield start
    for one in made:
        one.courier.stop()
        one.courier.join(10)
        assert not one.courier.is_alive()


def good(method: str, path: str, body: Any) -> Any:
    items = body if isinstance(body, list) else []
    return {"_items": [{"_id": item["_id"], "_status": "OK"} for item in items]}


def failing(word: str, poisoned: Callable[[Any], bool]) -> Say:
    def say(method: str, path: str, body: Any) -> Any:
        if isinstance(body, list) and any(poisoned(item) for item in body):
            raise BanyanError(word, "it fails")
        return good(method, path, body)

    return say


NAMES = [f"good {n}" for n in range(20)]


@pytest.mark.parametrize("word", ["internal", "unavailable"])
def test_what_fails_by_itself_does_not_hold_up_the_rest(stand: Callable[[Say], Stand], word: str):
    here = stand(failing(word, lambda item: item["_id"] == "task bad"))
    here.follow("bad", *NAMES)
    here.end("bad", *NAMES)
    here.courier.start()
    eventually(lambda: here.ended() == set(NAMES))
    here.follow("later")
    here.end("later")
    eventually(lambda: "later" in here.ended())
    assert "bad" not in here.ended()
    tried = len(here.said_of("bad"))
    eventually(lambda: len(here.said_of("bad")) > tried)


def test_an_end_that_fails_is_told_with_less(stand: Callable[[Say], Stand]):
    here = stand(failing("internal", lambda item: "reason" in item["update_execution_data"]))
    here.follow("one")
    here.end("one")
    here.courier.start()
    eventually(lambda: here.ended() == {"one"})
    *before, last = here.said_of("one")
    assert all(item["update_execution_data"]["reason"] == "because" for item in before)
    assert len(before) == 4
    assert last["state"] == "terminated"
    assert last["update_execution_data"].keys() == {
        "token", "exit_status", "time_terminated", "cpu_seconds", "peak_memory_bytes",
    }  # fmt: skip


def test_an_end_that_is_refused_is_told_with_least(stand: Callable[[Say], Stand]):
    def say(method: str, path: str, body: Any) -> Any:
        answer = good(method, path, body)
        for item, result in zip(body, answer["_items"], strict=True):
            if len(item["update_execution_data"]) > 3:
                result.update(_status="ERR", _error={"word": "too_large", "message": "no"})
        return answer

    here = stand(say)
    here.follow("one")
    here.end("one")
    here.courier.start()
    eventually(lambda: here.ended() == {"one"})
    assert [len(item["update_execution_data"]) for item in here.said_of("one")] == [6, 5, 3]


def test_a_worker_that_ends_gives_up_what_the_server_never_takes(stand: Callable[[Say], Stand]):
    here = stand(failing("internal", lambda item: item["_id"] == "task bad"))
    here.follow("bad", "good")
    here.end("bad", "good")
    here.courier.send(Errand("release", "POST", "/release"))
    here.courier.start()
    eventually(lambda: here.ended() == {"good"})
    here.courier.leave()
    eventually(lambda: here.ended() == {"good", "bad"})


NONSENSE: list[Any] = [
    None, 5, "text", [], {}, {"_items": None}, {"_items": {}}, {"_items": []},
    {"_items": [{}]}, {"_items": [None]}, {"_items": [{"_status": "OK"}] * 2},
    {"_items": [{"_error": "x"}]}, {"_items": [{"_error": {}}]},
    {"_items": [{"_error": {"word": 5}}]},
    {"_items": [{"_id": "task other", "_status": "OK"}]},
]  # fmt: skip


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_an_answer_that_makes_no_sense_is_asked_for_again(
    stand: Callable[[Say], Stand], nonsense: Any
):
    heard = threading.Event()

    def say(method: str, path: str, body: Any) -> Any:
        return good(method, path, body) if heard.is_set() else nonsense

    here = stand(say)
    here.follow("one")
    here.courier.send(Errand("registration", "POST", "/workers", check=answers.registered))
    here.end("one")
    here.courier.start()
    eventually(lambda: len(here.said_of("one")) > 2)
    assert not here.ended()
    assert not here.done()
    heard.set()
    eventually(lambda: here.ended() == {"one"})


def test_an_errand_that_fails_does_not_hold_up_the_others(stand: Callable[[Say], Stand]):
    def say(method: str, path: str, body: Any) -> Any:
        if path == "/bad":
            raise BanyanError("internal", "it fails")
        return good(method, path, body)

    here = stand(say)
    here.follow("one")
    here.courier.send(Errand("bad", "POST", "/bad"))
    here.courier.send(Errand("good", "POST", "/good"))
    here.end("one")
    here.courier.start()
    eventually(lambda: here.ended() == {"one"})
    eventually(lambda: here.done() == {"good": None})
    here.courier.leave()
    eventually(lambda: here.done() == {"good": None, "bad": "internal"})


def test_errands_keep_their_order_while_the_server_is_away(stand: Callable[[Say], Stand]):
    away = iter([True] * 5)

    def say(method: str, path: str, body: Any) -> Any:
        if next(away, False):
            raise BanyanError("unavailable", "it is away")
        return good(method, path, body)

    here = stand(say)
    for name in "abc":
        here.courier.send(Errand(name, "POST", f"/{name}"))
    here.courier.start()
    eventually(lambda: list(here.done()) == ["a", "b", "c"])
    assert [path for path, _ in here.connection.asked] == ["/a"] * 6 + ["/b", "/c"]


# --- What comes to the loop ---------------------------------------------------------------

ID = "0" * 24
TASK = {
    "_id": ID, "attempt_id": ID, "token": "t", "command": ["true"], "attempt_count": 1, "env": {},
    "granted_resources": {"cores": 1, "memory_bytes": 1},
}  # fmt: skip
BEAT = {
    "lease_seconds": 5, "mode": "active", "cancel": [], "lost": [],
    "wanted": {"number": 0, "attempts": []},
}  # fmt: skip


def test_good_answers_are_taken():
    assert answers.claimed({"_items": [TASK]}) == ([TASK], [])
    assert answers.beat(BEAT) == BEAT
    answers.registered({"_id": ID, "lease_seconds": 60})


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": None}, {"command": [5]}, {"env": []}, {"env": {"A": 5}},
        {"granted_resources": None}, {"granted_resources": {}},
        {"granted_resources": {"memory_bytes": "x"}},
        {"granted_resources": {"memory_bytes": 1, "custom": []}}, {"attempt_count": "1"},
        {"granted_resources": {"memory_bytes": 1, "gpu_compute_capability": "x"}},
        {"timeout_milliseconds": "1"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_task_that_makes_no_sense_holds_up_no_other(wrong: dict[str, Any]):
    usable, unusable = answers.claimed({"_items": [TASK, {**TASK, **wrong}, TASK]})
    assert usable == [TASK, TASK]
    assert [one[:3] for one in unusable] == [(ID, ID, "t")]


@pytest.mark.parametrize(
    "wrong", [{"_id": None}, {"attempt_id": "../../etc"}, {"token": 5}], ids=repr
)
def test_a_task_that_cannot_be_named_is_not_claimed(wrong: dict[str, Any]):
    with pytest.raises(BanyanError) as raised:
        answers.claimed({"_items": [TASK, {**TASK, **wrong}]})
    assert raised.value.word == "internal"


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_seconds": 0}, {"lease_seconds": "60"}, {"lease_seconds": float("inf")},
        {"lease_seconds": True}, {"mode": None}, {"cancel": None}, {"cancel": [{}]},
        {"lost": {}}, {"lost": [5]}, {"wanted": None}, {"wanted": {"number": "0", "attempts": []}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_beat_that_makes_no_sense_is_not_believed(wrong: dict[str, Any]):
    with pytest.raises(BanyanError) as raised:
        answers.beat({**BEAT, **wrong})
    assert raised.value.word == "internal"


# --- refusals that somebody in the server's place has said ---------------------------------

OF_A_WORKER = answers.REFUSALS_OF_A_WORKER
ONCE = [
    "bad_request", "not_found", "method_not_allowed", "not_acceptable", "conflict", "too_large",
    "unsupported_media_type", "invalid", "illegal_transition", "lease_lost",
]  # fmt: skip


def answering(words: list[str]) -> Say:
    """Refuses with each of them in turn, then answers; the last one for ever, where it is `…`."""

    def say(method: str, path: str, body: Any) -> Any:
        if not words:
            return {"_id": "5" * 24, "lease_seconds": 60}
        word = words[0] if words[1:] == ["…"] else words.pop(0)
        raise BanyanError(word, "said by whoever is in the server's place")

    return say


@pytest.mark.parametrize("word", ONCE)
def test_what_was_said_once_does_not_end_a_registration(stand: Callable[[Say], Stand], word: str):
    here = stand(answering([word, word]))
    check, ends = answers.registered, OF_A_WORKER
    here.courier.send(Errand("registration", "POST", "/workers", {}, check, ends))
    here.courier.start()
    eventually(lambda: here.done() == {"registration": None})
    assert len(here.connection.asked) == 3


@pytest.mark.parametrize("word", ["unauthenticated", "forbidden"])
def test_a_token_that_is_no_good_ends_a_registration_at_once(
    stand: Callable[[Say], Stand], word: str
):
    here = stand(answering([word]))
    here.courier.send(Errand("registration", "POST", "/workers", {}, ends=OF_A_WORKER))
    here.courier.start()
    eventually(lambda: here.done() == {"registration": word})


@pytest.mark.parametrize("word", ["invalid", "too_large"])
def test_what_is_said_again_and_again_of_a_registration_is_believed(
    stand: Callable[[Say], Stand], word: str
):
    here = stand(answering([word, "…"]))
    here.courier.send(Errand("registration", "POST", "/workers", {}, ends=OF_A_WORKER))
    here.courier.start()
    eventually(lambda: here.done() == {"registration": word})
    assert len(here.connection.asked) == courier._REFUSALS


@pytest.mark.parametrize("word", ["bad_request", "not_found"])
def test_a_registration_is_asked_for_as_long_as_nobody_says_no(
    stand: Callable[[Say], Stand], caplog: pytest.LogCaptureFixture, word: str
):
    here = stand(answering([word, "…"]))
    here.courier.send(Errand("registration", "POST", "/workers", {}, ends=OF_A_WORKER))
    here.courier.start()
    eventually(lambda: len(here.connection.asked) > 2 * courier._REFUSALS)
    assert not here.done()
    told = [one for one in caplog.records if one.levelname == "WARNING"]
    assert len(told) == 1


def test_what_else_is_refused_ends_as_soon_as_it_is_certain(stand: Callable[[Say], Stand]):
    here = stand(answering(["lease_lost"]))
    here.courier.send(Errand("recognition", "POST", "/beat"))
    here.courier.start()
    eventually(lambda: here.done() == {"recognition": "lease_lost"})
