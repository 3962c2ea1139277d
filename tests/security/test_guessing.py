"""What guessing tokens costs: who sends wrong ones is told to slow down, valid ones never are."""

import itertools
from collections.abc import Callable

import pytest

from banyan.errors import BanyanError
from banyan.server import refusals
from banyan.server.refusals import Refusals
from tests.contract.playing import word
from tests.harness import Api, Server

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
