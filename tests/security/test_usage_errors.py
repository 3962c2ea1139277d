"""What is wrong with a command line is told without the terminal acting on what it quotes.

Names of files are other people's words: a link that leads nowhere, in a directory of theirs.
"""

import sys
from pathlib import Path

import pytest

from banyan.cli import main as cli
from banyan.errors import EXIT_USAGE
from tests.harness.processes import ROOT
from tests.security.terminals import Terminal
from tests.security.test_hostile_words import EVIL, OURS

NAME = EVIL.replace("/", "")
LINES = [
    ("submit", "--each-line", NAME, "--", "true"), ("submit", "--from-json", NAME, "--", "true"),
    ("submit", "--each-line", f"{NAME} text", "--", "true"),
    ("submit", "--from-json", f"{NAME} text", "--", "true"),
    ("worker", "--standalone", NAME), ("worker", "--standalone", f"{NAME} text"),
    ("worker", "--standalone", f"{NAME} text/x"), ("worker", "--standalone", f"{NAME} directory"),
    ("worker", "--url", "http://127.0.0.1:9", "--token-file", NAME),
    ("worker", "--token-file", f"{NAME} directory"), ("worker", "--cores", EVIL),
    ("worker", f"list{EVIL}"), (EVIL,), ("ls", f"--no{EVIL}"),
    ("ls", "--token-file", NAME), ("log", "--tail", EVIL, "last"), ("up", "--port", EVIL),
    ("account", "create", "a", "--role", EVIL), ("completion", EVIL), ("config", EVIL),
    ("submit", f"./{NAME}.sh"),
    ("login", "http://127.0.0.1:9", "--token-file", NAME),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / NAME).symlink_to(tmp_path / "nowhere")
    (tmp_path / f"{NAME} text").write_bytes(b"\xff\xfe\x00{")
    (tmp_path / f"{NAME} directory").mkdir()
    (tmp_path / f"{NAME}.sh").write_text("#!/bin/sh\n#BANYAN --no-such\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BANYAN_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BANYAN_TOKEN", "t")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line).replace(NAME, "EVIL"))
def test_what_is_quoted_is_shown(
    place: Path, capsys: pytest.CaptureFixture[str], line: tuple[str, ...]
) -> None:
    assert cli.run([*line]) == EXIT_USAGE
    told = capsys.readouterr()
    assert "owned" in told.err
    assert not {one for one in told.err + told.out if not one.isprintable()} - {"\n"}


def test_at_a_terminal_too(place: Path) -> None:
    words = [sys.executable, "-m", "banyan", *LINES[0]]
    terminal = Terminal(words, place, PYTHONPATH=str(ROOT), COLUMNS="400")
    shown = OURS.sub("", terminal.rest()).replace("\r\n", "\n")
    terminal.close()
    assert "No such file" in shown
    assert not {one for one in shown if not one.isprintable()} - {"\n"}, shown
