"""What guessing tokens costs: who sends wrong ones is told to slow down, valid ones never are."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from bson import ObjectId

from banyan.errors import BanyanError
from banyan.server import refusals
from banyan.server.auth import Authenticator, attempt_token
from banyan.server.refusals import Refusals
from banyan.server.store import accounts, tasks
from tests.contract.playing import word
from tests.harness import Api, Server, eventually

NUMBERS = itertools.count()


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def tries(counted: Refusals, address: str, count: int) -> int:
    """How many of so many wrong tokens are answered as usual."""
    refused = []
    for _ in range(count):
        try:
            counted.count(address, f"guess {next(NUMBERS)}")
        except BanyanError as refusal:
            refused.append(refusal)
    assert {refusal.word for refusal in refused} <= {"too_many_requests"}
    assert all(0 < refusal.retry_after_seconds <= 60 for refusal in refused)
    return count - len(refused)


def test_a_number_of_failures_is_free_and_comes_back_with_time() -> None:
    clock = Clock()
    counted = Refusals(30, clock)
    assert tries(counted, "10.0.0.1", 100) == 30
    clock.seconds += 10
    assert tries(counted, "10.0.0.1", 100) == 5
    clock.seconds += 3600
    assert tries(counted, "10.0.0.1", 100) == 30  # not more than that, however long it waited


def test_addresses_are_counted_apart_and_a_network_of_ipv6_as_one() -> None:
    counted = Refusals(3, Clock())
    assert tries(counted, "10.0.0.1", 9) == 3
    assert tries(counted, "10.0.0.2", 9) == 3
    assert tries(counted, "::ffff:10.0.0.2", 9) == 0
    assert sum(tries(counted, f"2001:db8:1:2::{one:x}", 1) for one in range(9)) == 3
    assert tries(counted, "2001:db8:1:3::1", 9) == 3
    assert tries(counted, "not an address", 9) == 3


def test_the_same_wrong_token_again_is_no_further_guess() -> None:
    counted = Refusals(2, Clock())
    for _ in range(100):
        counted.count("10.0.0.1", "revoked")
    assert tries(counted, "10.0.0.1", 9) == 1
    counted.count("10.0.0.1", "revoked")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "ADDRESSES_MAX", 2)
    counted = Refusals(1, Clock())
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        assert tries(counted, address, 9) == 1
    assert tries(counted, "10.0.0.3", 9) == 0
    assert tries(counted, "10.0.0.1", 1) == 1  # forgotten: it had failed the longest time ago


def test_zero_is_no_limit() -> None:
    assert tries(Refusals(0), "10.0.0.1", 100) == 100


def test_wrong_tokens_are_refused_and_the_right_one_is_served(
    serve: Callable[..., Server],
) -> None:
    server = serve(AUTH_FAILURES_PER_MINUTE=3)
    guessers = [Api(server.url, f"bny_0123456789abcdef_guess{number}") for number in range(6)]
    answers = [one.get("tasks") for one in guessers]
    guesser = guessers[-1]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 3
    assert len({answer.content for answer in answers[:3]}) == 1
    assert word(answers[3]) == (429, "too_many_requests")
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 20
    assert server.provider.get("tasks").status_code == 200
    assert [guessers[0].get("tasks").status_code for _ in range(5)] == [401] * 5  # no new guess
    # Who sends no token guesses nothing; what anybody may see is not counted either.
    assert [server.anonymous.get("tasks").status_code for _ in range(5)] == [401] * 5
    assert guesser.get("healthz").status_code == 200
    # What the caller says of itself is believed only behind a proxy.
    posing = {"X-Forwarded-For": "10.9.9.9"}
    assert guesser.get("tasks", headers=posing).status_code == 429


def test_others_behind_the_address_of_a_guesser_are_served(serve: Callable[..., Server]) -> None:
    server = serve(AUTH_FAILURES_PER_MINUTE=3)

    def guess() -> int:
        return Api(server.url, token_number(next(NUMBERS))).get("tasks").status_code

    eventually(lambda: guess() == 429)
    new = server.account("provider")  # by the admin's token, which this server has not seen before
    for _ in range(20):
        guess()
    assert eventually(lambda: new.get("tasks").status_code == 200)
    assert guess() == 429


# --- What wrong tokens cost the database ----------------------------------------------------


class Looked:
    """An Authenticator that counts whom it looks up; `valid` are the tokens that are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_minute: int) -> None:
        self.clock, self.count = Clock(), 0
        self.valid: set[str] = set()
        self.readings = 0
        context: Any = SimpleNamespace(store=None, attempt_secret=b"secret")
        monkeypatch.setattr(accounts, "find_token", self.find)
        self.authenticator = Authenticator(context, per_minute)
        self.authenticator._refusals = Refusals(per_minute, self.clock, self.read)

    def find(self, store: Any, token: str) -> dict[str, Any] | None:
        self.count += 1
        return {"account": "a", "roles": ["provider"]} if token in self.valid else None

    def read(self) -> frozenset[str]:
        self.readings += 1
        return frozenset(map(accounts.as_stored, self.valid))

    def answer(self, token: str, address: str = "10.0.0.1") -> str:
        try:
            self.authenticator.authenticate(f"Bearer {token}", address)
        except BanyanError as refusal:
            return refusal.word
        return "ok"


def token_number(number: int) -> str:
    return f"bny_{number:016x}_{'x' * 43}"


def test_what_is_no_token_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(monkeypatch, 0)
    good = token_number(1)
    for wrong in ("x", good[:-1], good + "x", good.upper(), "bny__", "att_0_0", good[:-1] + "!"):
        assert looked.answer(wrong) == "unauthenticated"
    assert looked.count == 0


def test_a_wrong_token_is_looked_up_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(monkeypatch, 0)
    assert {looked.answer(token_number(1)) for _ in range(100)} == {"unauthenticated"}
    assert looked.count == 1
    looked.clock.seconds += 60
    looked.answer(token_number(1))
    assert looked.count == 2


def test_beyond_the_limit_nothing_wrong_is_looked_up_and_valid_ones_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Looked(monkeypatch, 30)
    old, new, elsewhere = (token_number(number) for number in (10**6, 10**6 + 1, 10**6 + 2))
    looked.valid = {old, new, elsewhere}
    assert looked.answer(old) == "ok"
    looked.authenticator.forget()
    answers = [looked.answer(token_number(number)) for number in range(1000)]
    assert answers.count("unauthenticated") == 30
    assert set(answers[30:]) == {"too_many_requests"}
    assert looked.count == 1 + 30
    assert looked.readings == 1
    for token in (old, new, elsewhere):  # while it goes on, and not seen before
        assert looked.answer(token_number(5000)) == "too_many_requests"
        assert looked.answer(token) == "ok"
    assert looked.readings == 1


def test_a_token_that_is_made_meanwhile_is_served_a_moment_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Looked(monkeypatch, 3)
    for number in range(100):
        looked.answer(token_number(number))
    looked.valid = {token_number(7000)}
    assert looked.answer(token_number(7000)) == "too_many_requests"
    looked.clock.seconds += refusals.STORED_SECONDS
    looked.answer(token_number(8000))
    assert looked.answer(token_number(7000)) == "ok"


def test_with_a_secret_of_ones_own_no_other_id_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Looked(monkeypatch, 3)
    looked.valid = {token_number(7000)}
    for number in range(1000):  # which all have the same secret
        looked.answer(token_number(number))
    assert looked.count == 3


def test_a_sealed_token_is_looked_up_whoever_guesses_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = Looked(monkeypatch, 3)
    task = {"owner": "a", "_id": ObjectId()}
    monkeypatch.setattr(tasks, "of_attempt", lambda store, attempt_id: task)
    for number in range(1000):
        looked.answer(token_number(number))
    assert looked.answer(token_number(5000)) == "too_many_requests"
    assert looked.answer(attempt_token(b"secret", ObjectId())) == "ok"
    assert looked.answer(attempt_token(b"another", ObjectId())) == "too_many_requests"


def test_what_is_no_token_takes_no_place_of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(monkeypatch, 3)
    valid = token_number(7)
    looked.valid = {valid}
    for number in range(1000):
        looked.answer(f"bny_{number}")
        looked.answer(f"att_{number:024x}_{'0' * 64}")
    assert looked.answer(valid) == "ok"


def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "TOKENS_MAX", 3)
    looked = Looked(monkeypatch, 0)
    for number in [*range(10), 0]:
        looked.answer(token_number(number))
    assert looked.count == 11  # the first was forgotten
