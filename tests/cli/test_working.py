"""What is shown of work that takes its time."""

import io
import sys

import pytest

from banyan.cli import working
from banyan.cli.working import Working
from banyan.domain.units import counted
from tests.harness import eventually


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    monkeypatch.setattr(working, "SILENT_SECONDS", 0.01)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_terminal_sees_how_far_it_is_and_nothing_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = shown(monkeypatch, Terminal())
    with Working("cancelling", 50_000) as work:
        eventually(lambda: "cancelling (0 s)" in terminal.getvalue())
        work(12_000)
        eventually(lambda: "cancelling: 12,000 of 50,000" in terminal.getvalue())
    assert terminal.getvalue().endswith("\r\x1b[2K")


def test_a_pipe_sees_nothing_and_neither_does_who_waits_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = shown(monkeypatch, io.StringIO())
    with Working("cancelling", 5) as work:
        work(5)
    assert pipe.getvalue() == ""
    terminal = shown(monkeypatch, Terminal())
    monkeypatch.setattr(working, "SILENT_SECONDS", 60.0)
    with Working("cancelling", 5) as work:
        work(5)
    assert terminal.getvalue() == ""


def test_counts_have_their_plurals() -> None:
    assert [counted(count) for count in (0, 1, 2927)] == ["0 tasks", "1 task", "2,927 tasks"]
    assert counted(1, "worker") == "1 worker"
