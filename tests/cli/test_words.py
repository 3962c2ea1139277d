"""What people write on a command line, read; errors name the option."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from banyan.addresses import as_host
from banyan.cli import words
from banyan.errors import BanyanError


def test_sizes_and_durations() -> None:
    assert words.size_bytes("1 GiB", "--memory") == 2**30
    assert words.size_bytes("64M", "--memory") == 64 * 2**20
    assert words.size_bytes("1073741824", "--memory") == 2**30
    assert words.size_bytes("0", "--memory") == 0
    assert words.duration_milliseconds("90", "--timeout") == 90_000
    assert words.duration_milliseconds("1.5", "--timeout") == 1_500
    assert words.duration_milliseconds("10 minutes", "--timeout") == 600_000
    assert words.duration_seconds("1:30:00", "--timeout") == 5_400


def test_a_small_number_of_bytes_was_meant_in_another_unit() -> None:
    with pytest.raises(BanyanError, match="did you mean 512M"):
        words.size_bytes("512", "--memory")
    assert words.size_bytes("512 B", "--memory") == 512


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-12-31 08:00", "2026-12-31T07:00:00+00:00"),
        ("2026-12-31", "2026-12-30T23:00:00+00:00"),
        ("2026-12-31T08:00Z", "2026-12-31T08:00:00+00:00"),
        ("2026-12-31T08:00:00.5-05:00", "2026-12-31T13:00:00.500000+00:00"),
        ("Thu, 31 Dec 2026 08:00:00 GMT", "2026-12-31T08:00:00+00:00"),
    ],
)
def test_a_start_time_is_that_of_the_clock_here_unless_it_says(text: str, utc: str) -> None:
    assert words.moment(text, "--not-before").astimezone(UTC).isoformat() == utc


def test_a_start_time_may_be_a_delay_or_a_time_of_day() -> None:
    now = datetime.now(UTC)
    for text, seconds in (("90", 90), ("2h30m", 9000), ("PT10M", 600)):
        delay = words.moment(text, "--not-before") - now
        assert timedelta(seconds=seconds) <= delay < timedelta(seconds=seconds + 60)
    at = words.moment("22:30", "--not-before")
    assert (at.hour, at.minute) == (22, 30)
    assert now < at <= now + timedelta(hours=25)  # a day may be longer by an hour
    for text in ("8:00:00", "soon", "25:00", "9999999 weeks", "2026-13-01", ""):
        with pytest.raises(BanyanError, match="--not-before"):
            words.moment(text, "--not-before")


def test_a_time_that_is_over_may_be_so_long_ago_a_time_of_day_or_a_day() -> None:
    now = datetime.now(UTC)
    for text, seconds in (("90", 90), ("2h30m", 9000), ("7d", 604_800)):
        ago = now - words.time_ago(text, "--since")
        assert timedelta(seconds=seconds - 60) < ago <= timedelta(seconds=seconds)
    at = words.time_ago("22:30", "--since")
    assert (at.hour, at.minute) == (22, 30)
    assert now - timedelta(hours=25) <= at <= datetime.now(UTC)
    today, yesterday = (words.time_ago(text, "--since") for text in ("today", "yesterday"))
    assert (today.hour, today.minute, today.second) == (0, 0, 0)
    assert today.date() - yesterday.date() == timedelta(days=1)
    assert words.time_ago("2026-01-31T08:00Z", "--since").isoformat() == "2026-01-31T08:00:00+00:00"
    for text in ("8:00:00", "tomorrow", "9999999 weeks", ""):
        with pytest.raises(BanyanError, match=r"--since.*how long ago"):
            words.time_ago(text, "--since")


def test_amounts() -> None:
    assert words.amounts(["licence=1", "io=0.5"], "--custom") == {"licence": 1, "io": 0.5}


def test_a_host_is_made_of_what_names_of_machines_are_made_of() -> None:
    for good in ("rack7", "rack-7.example.org", "::1", "a_b", "x" * 253):
        assert words.host(good) == good == as_host(good)
    for bad, mapped in (
        ("rack 7", "rack-7"), ("-x", "x"), ("", "unnamed"), ("---", "unnamed"), ("x\n", "x-"),
        ("a$(b)", "a--b-"), ("r\u00e4ck", "r-ck"), ("y" * 300, "y" * 253),
    ):  # fmt: skip
        with pytest.raises(BanyanError, match="--host"):
            words.host(bad)
        assert as_host(bad) == mapped


def test_cores() -> None:
    assert words.cores("2") == {"cores": 2}
    assert words.cores("0.5") == {"cores": 0.5}
    assert words.cores("50%") == {"cpu_cores": {"percent": 50}}


def test_pairs_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "value")
    assert words.pairs(["a=1", "b=x=y", "c="], "--tag") == {"a": "1", "b": "x=y", "c": ""}
    assert words.environment(["HERE", "X=2"]) == {"HERE": "value", "X": "2"}


def test_all_of_the_environment_but_what_is_banyans_or_the_shells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = {"A": "1", "B": "2", "BANYAN_TOKEN": "secret", "_": "x", "PWD": "/here", "SHLVL": "1",
            "BASH_FUNC_module%%": "() { :; }", "two words": "x"}  # fmt: skip
    monkeypatch.setattr(words.os, "environ", here)
    handed_on = {"A": "1", "B": "2", "BASH_FUNC_module%%": "() { :; }"}
    assert words.environment(["ALL"]) == handed_on
    assert words.environment(["B=mine", "ALL", "ALL=one"]) == {
        **handed_on, "B": "mine", "ALL": "one",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("read", "option"),
    [
        (lambda: words.size_bytes("many", "--memory"), "--memory"),
        (lambda: words.duration_milliseconds("soon", "--timeout"), "--timeout.*90s"),
        (lambda: words.duration_milliseconds("01:00", "--timeout"), "--timeout.*1:30:00"),
        (lambda: words.duration_milliseconds("0", "--timeout", least=1), "--timeout"),
        (lambda: words.size_bytes("9000 PiB", "--memory"), "--memory.*at most 8 PiB"),
        (lambda: words.amounts(["licence"], "--custom"), "--custom.*NAME=N"),
        (lambda: words.amounts(["licence=-1"], "--custom"), "--custom"),
        (lambda: words.amounts(["licence=nan"], "--custom"), "--custom"),
        (lambda: words.cores("two"), "--cores"),
        (lambda: words.cores("%"), "--cores"),
        (lambda: words.pairs(["novalue"], "--tag"), "--tag"),
        (lambda: words.environment(["NOT_SET_HERE"]), "--env"),
    ],
)
def test_errors_name_the_option(read: Callable[[], Any], option: str) -> None:
    with pytest.raises(BanyanError, match=option) as caught:
        read()
    assert caught.value.word == "usage"
