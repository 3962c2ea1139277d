"""Every command where it may find itself: standard output and error closed, full, unread or not
UTF-8; no home directory; a working directory that has been removed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from banyan.cli.main import COMMANDS
from banyan.errors import EXIT_OK, EXIT_OUTPUT, WORDS
from tests.e2e.stack import Stack
from tests.e2e.streams import PLACES
from tests.harness.processes import ROOT

NAME = "naïve … 日本 \N{SNAKE}"
CODES = {0, 1, 130, 141, *(word.exit_code for word in WORDS.values())}


def lines(id: str, place: Path) -> list[list[str]]:
    """Of every command at least one that prints something, or says something."""
    nowhere = str(place / "nowhere" / "lock")
    return [
        ["--help"], ["nonsense"], ["ls", "--nonsense"], ["up", "--port", "x"], ["server", "--help"],
        ["down", "--data", nowhere], ["doctor", "--help"], ["worker", "list"],
        ["worker", "list", "--json"], ["submit", "--json", "--hold", "--", "true"],
        ["submit", "--array", "1-2", "-q", "--hold", "--", "true"], ["submit", "--curl", "true"],
        ["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"],
        ["ls", "--name", NAME], ["ls", "--json", "--name", NAME], ["show", id],
        ["log", "-f", id], ["log", "-f", "--stream", "stderr", id], ["log", "--name", NAME],
        ["wait", id], ["wait", "--json", id], ["cancel", id], ["release", id],
        ["retry", "--name", "nothing"], ["forget", "f" * 24], ["explain", id], ["script", id],
        ["set", id, "--retain", "9d"], ["results", "--csv", "--name", NAME], ["results", id],
        ["result", "1"], ["progress", id], ["progress", "--once", "--json", id], ["top"],
        ["stats"], ["usage"], ["login", "http://127.0.0.1:9"], ["account", "list"],
        ["config", "show", "--origin"], ["completion", "bash"], ["ls", "--profile", "none"],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ended(stack: Stack) -> str:
    """The id of a task that has failed, after some output."""
    id = stack.text("submit", "-q", "--name", NAME, "--", "sh", "-c", "echo é; echo e >&2; exit 4")
    stack.call("wait", id, code=1)
    return id


def come_of(stack: Stack, asked: list[list[str]], *names: str) -> list[dict[str, Any]]:
    """What comes of each line, by surrounding."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.streams", *names],
        env={**os.environ, **stack.environment, "PYTHONWARNINGS": "ignore"},
        input="".join(json.dumps(one) + "\n" for one in asked),
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_lines_are_of_every_command(tmp_path: Path) -> None:
    assert {line[0] for line in lines("", tmp_path)} >= COMMANDS.keys()


def test_each_ends_with_a_sentence_and_never_a_traceback(
    stack: Stack, ended: str, tmp_path: Path
) -> None:
    asked = lines(ended, tmp_path)
    wrong = []
    for line, by_name in zip(asked, come_of(stack, asked), strict=True):
        plain = by_name["plain"]
        for name, found in by_name.items():
            expected = {plain["code"]}
            if name.endswith(("closed", "full")) and plain["out"]:
                expected = {plain["code"] or EXIT_OUTPUT, EXIT_OUTPUT}
            if name in PLACES:
                expected = CODES
            if name == "unread":
                expected |= {EXIT_OK, 141}
            untold = name == "out full" and found["code"] == EXIT_OUTPUT and not found["err"]
            trace = any(word in found["err"] for word in ("Traceback", "ignored", "bug in Banyan"))
            if found["code"] not in expected & CODES or trace or untold:
                wrong.append((name, line, plain["code"], found))
    assert not wrong, "\n".join(map(str, wrong))


def test_what_an_encoding_does_not_have_is_escaped_and_json_stays_json(
    stack: Stack, ended: str
) -> None:
    words = ["show", ended]
    both = come_of(stack, [words, [*words, "--json"]], "latin-1")
    shown, listed = (str(one["latin-1"]["out"]) for one in both)
    assert "na\N{REPLACEMENT CHARACTER}ve \\u2026 \\u65e5\\u672c \\U0001f40d" in shown
    assert listed.isascii()
    assert json.loads(listed)["name"] == NAME


def test_a_closed_output_is_not_taken_by_a_connection(stack: Stack) -> None:
    """Else what a task writes would go to the server."""
    shell = f"{sys.executable} -m banyan run -- sh -c 'echo out; echo err >&2' >&-"
    done = subprocess.run(
        ["sh", "-c", shell], env={**os.environ, **stack.environment}, cwd=ROOT,
        stderr=subprocess.PIPE, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == EXIT_OUTPUT
    assert b"standard output cannot be written: it is closed" in done.stderr
