"""The frame of the command line: help, what it loads, exit codes, errors in one line."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from banyan.cli import main as cli
from banyan.errors import BanyanError
from tests.client.scripted import Scripted, error, ok
from tests.client.scripted import server as server
from tests.harness.processes import ROOT

GONE = "http://127.0.0.1:9"  # discard: nobody listens there


@pytest.fixture(autouse=True)
def no_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "config.toml"))


def banyan(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "banyan", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_help_names_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in cli.COMMANDS)
    assert "75" in told


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("lss", "'ls'"), ("logs", "'log'"), ("ps", "'ls'"), ("rm", "'forget'"), ("xyzzy", "")],
)
def test_a_command_that_is_none_leads_to_one(
    slip: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([slip]) == 2
    told = capsys.readouterr().err
    assert f"No such command '{slip}'." in told
    assert told.rstrip().endswith(f"Did you mean {meant}?") if meant else "mean" not in told


@pytest.mark.parametrize(
    ("words", "own"), [(["submit"], "--cores"), (["submit"], "--quiet"), (["ls"], "--where"),
                       (["worker", "remove"], "--yes")],
)  # fmt: skip
def test_help_has_a_commands_own_options_before_the_ways_to_the_server(
    words: list[str], own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--help"]) == 0
    told = capsys.readouterr().out
    places = [told.index(f"{option} ") for option in (own, "--url", "--curl")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "words",
    [[name] for name in cli.COMMANDS if name not in ("account", "config")]
    + [["account", verb] for verb in ("create", "list", "issue", "revoke")]
    + [["worker", verb] for verb in ("list", "invite", "drain", "resume", "remove")]
    + [["config", "show"]],
    ids=" ".join,
)
def test_every_command_has_help_with_an_example(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--help"]) == 0
    assert f"Example:\n    banyan {' '.join(words)}" in capsys.readouterr().out


def test_help_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys; from banyan.cli.main import run; run(['--help']); run(['up', '--help']);"
        "print(sorted(sys.modules.keys() & {'rich', 'requests', 'eve', 'pymongo', 'psutil'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["ls", "--nonsense"], ["run"], ["wait"], ["ls", "--where", "{"], ["ls"]],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert cli.run(arguments) == 2


def test_nobody_there_ends_with_75_and_one_line() -> None:
    done = banyan("ls", "--url", GONE, "--token", "t")
    assert done.returncode == 75
    assert done.stdout == ""
    assert done.stderr.startswith("banyan: ")
    assert len(done.stderr.splitlines()) == 1


def test_no_server_known_says_what_to_do() -> None:
    done = banyan("ls")
    assert done.returncode == 2
    assert "banyan up" in done.stderr


def test_a_token_file_that_is_not_there_is_named() -> None:
    done = banyan("ls", "--url", GONE, "--token-file", "/nowhere/token")
    assert done.returncode == 2
    assert "/nowhere/token" in done.stderr


def test_a_worker_without_a_token_is_told(tmp_path: Path) -> None:
    assert cli.run(["worker"]) == 2
    assert cli.run(["worker", "--url", GONE, "--token-file", str(tmp_path / "none")]) == 2


def test_an_error_lists_its_issues(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    issues = {"command": "too long", "env": {"A B": ["no name"]}, "0": "a", "": "b"}
    error = BanyanError("invalid", "nothing was stored", issues)
    monkeypatch.setattr(cli.banyan, "invoke", lambda context: _raise(error))
    assert cli.run(["ls"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "banyan: nothing was stored",
        "  command: too long",
        "  env.A B: no name",
        "  0: a",
        "  b",
    ]


def _raise(error: Exception) -> None:
    raise error


def test_help_says_that_a_delay_is_another_task_each_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["submit", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "a delay means another task each time" in told


def test_a_cancel_that_was_done_is_told_also_where_nothing_more_is_to_be_learned(
    capsys: pytest.CaptureFixture[str], server: Scripted
) -> None:
    server.replies = [ok({}), error(403, "forbidden")]
    assert cli.run(["cancel", "5" * 24, "--url", server.url, "--token", "t"]) == 0
    assert [one.method for one in server.asked] == ["POST", "GET"]
    assert "1 task cancelled" in capsys.readouterr().err


def test_what_had_ended_before_it_was_cancelled_is_told(
    capsys: pytest.CaptureFixture[str], server: Scripted
) -> None:
    """Of just those that were to be cancelled: others of that name have ended long ago."""
    tasks = [{"_id": f"{number:024x}", "owner": "me"} for number in range(250)]
    states = [{"cancelled": 150, "terminated": 50}, {"pending_cancellation": 30, "terminated": 20}]
    server.replies = [
        ok({"_items": tasks, "_meta": {"page": 1, "max_results": 1000, "total": 250}}),
        ok({}),
        *(ok({"by_state": one}) for one in states),
    ]
    words = ["cancel", "--yes", "--name", "many", "--url", server.url, "--token", "t"]
    assert cli.run(words) == 0
    assert [one.method for one in server.asked] == ["GET", "POST", "GET", "GET"]
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[-1]) == ("150 tasks cancelled", "70 tasks had ended before")
    assert told[1].startswith("30 tasks being ended")


def test_whoever_stops_reading_gets_no_complaint() -> None:
    program = (
        "from banyan.cli import main;"
        "main.banyan.invoke = lambda context: [print(number) for number in range(10**6)];"
        "main.main(['ls'])"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
    assert done.stderr == ""
