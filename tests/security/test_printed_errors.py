"""Errors that a program does not catch: what a task or a server has said acts on no terminal."""

import json
import pickle
import subprocess
import sys
import traceback

import pytest

from banyan.client.api import Client
from banyan.client.futures import TaskFailed, last_lines
from banyan.errors import BanyanError
from banyan.printable import harmless, harmless_lines
from tests.client.scripted import scripted_server
from tests.harness.processes import ROOT

# A title, the clipboard, a colour by a one-byte introducer, the other direction, a separator, half
# of a character.
EVIL = "\x1b]0;owned\x07\x1b]52;c;QUJD\x07\x9b31m\u202egpj\u2028x\r\x7f\ud800"


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_what_a_task_has_written_is_written_out() -> None:
    output = last_lines(f"{EVIL}\nand a second line".encode(errors="replace"))
    error = TaskFailed(f"id{EVIL}", f"failure{EVIL}", f"failure (1){EVIL}", output, f"why{EVIL}")
    told = printed(error)
    assert all(line.isprintable() for line in told.split("\n"))
    assert "\nand a second line" in told
    assert "\\x1b]0;owned\\x07" in told
    assert error.output == output  # a program gets it as it was
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - it is ours


def test_so_is_what_a_server_says() -> None:
    refusal = {"_status": "ERR", "_error": {"word": "invalid", "message": f"no{EVIL}\nnor"}}
    with scripted_server() as evil:
        evil.replies = [(422, {}, json.dumps(refusal).encode())]
        with Client(evil.url, "t", retry_seconds=0) as client, pytest.raises(BanyanError) as error:
            client.get("x")
        errors = [error.value]
        for place in ("http://x/\x1b]0;owned\x07", "http://x/\x9b31m", "http://["):
            evil.replies = [(301, {"Location": place}, b"")]
            with Client(evil.url, "t", retry_seconds=0) as client:
                with pytest.raises(BanyanError) as moved:
                    client.get("x")
                errors.append(moved.value)
    for one in errors:
        assert all(line.isprintable() for line in printed(one).split("\n"))
    assert error.value.message == f"no{EVIL}\nnor"
    assert str(error.value).endswith("\nnor")


def test_a_program_that_dies_of_it_shows_it_so() -> None:
    script = f"from banyan.errors import BanyanError; raise BanyanError('invalid', {EVIL!r})"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60
    )
    assert ended.returncode == 1
    assert b"\\x1b]0;owned" in ended.stderr
    assert not set(ended.stderr) & {0x1B, 0x07, 0x0D, 0x7F, 0x9B}


def test_letters_of_all_languages_stay() -> None:
    text = "Größe, 大きさ, размер — \\x1b"
    assert harmless(text) == text
    assert harmless_lines(f"{text}\n{text}") == f"{text}\n{text}"
    assert harmless("a\nb\tc") == "a\\nb\\tc"
