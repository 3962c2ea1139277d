"""What people write on a command line, read; errors name the option."""

from collections.abc import Callable
from typing import Any

import pytest

from banyan.addresses import as_host
from banyan.cli import words
from banyan.errors import BanyanError


def test_sizes_and_durations() -> None:
    assert words.size_bytes("1 GiB", "--memory") == 2**30
    assert words.size_bytes("1024", "--memory") == 1024
    assert words.duration_milliseconds("90", "--timeout") == 90_000
    assert words.duration_milliseconds("1.5", "--timeout") == 1_500
    assert words.duration_milliseconds("10 minutes", "--timeout") == 600_000
    assert words.duration_seconds("1:30:00", "--timeout") == 5_400


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
        (lambda: words.duration_milliseconds("soon", "--timeout"), "--timeout"),
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
