"""Tokens, as we tell people to handle them, are for nobody else on the machine.

Everybody can read the arguments of a process, and a file that was made with the usual umask.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from banyan.cli import main as cli
from banyan.cli.completing import complete_workers
from banyan.ownership import told_of_readers
from banyan.worker.tokens import read_token
from tests.client.scripted import ok, scripted_server
from tests.harness.processes import ROOT
from tests.worker.test_run_as import needs_root, nobody

TOKEN = "bny_" + "0" * 24 + "_" + "a" * 64
LINES = [
    ["ls"], ["submit", "true"], ["submit", "--array", "1-3", "true"], ["cancel", "5" * 24],
    ["account", "create", "x", "--role", "worker"],
]  # fmt: skip
# What says how to do things: the commands' help too.
TOLD = [
    ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "banyan").rglob("*.py"),
    *(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
]  # fmt: skip


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@needs_root
def test_nothing_is_said_where_we_cannot_see_who_gets_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = place / "inner"
    inner.mkdir()
    inner.chmod(0o755)
    (inner / "token").write_text(TOKEN)
    (inner / "token").chmod(0o644)
    monkeypatch.chdir(inner)
    assert "everybody" in told_of_readers(Path("token"))
    place.chmod(0o700)
    os.seteuid(nobody()["uid"])
    try:
        assert told_of_readers(Path("token")) == ""
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_request_as_curl_shows_the_token_to_nobody(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    line: list[str], shell: str,
) -> None:  # fmt: skip
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    monkeypatch.setenv("BANYAN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BANYAN_TOKEN", TOKEN)
    assert cli.run([*line, "--curl"] if line[-1] != "true" else [line[0], "--curl", *line[1:]]) == 0
    shown = capsys.readouterr().out
    assert TOKEN not in shown
    said = "import json, sys; print(json.dumps([sys.argv[1:], sys.stdin.read()]))"
    (tmp_path / "curl").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{said}' \"$@\"\n")
    (tmp_path / "curl").chmod(0o755)
    done = subprocess.run(
        [program], input=shown, capture_output=True, text=True, timeout=60, check=True,
        env={"PATH": str(tmp_path), "BANYAN_TOKEN": TOKEN},  # so no other program is called
    )  # fmt: skip
    assert not done.stderr
    assert done.stdout
    for arguments, read in map(json.loads, done.stdout.splitlines()):
        assert TOKEN not in str(arguments)
        assert arguments[arguments.index("@-") - 1] == "-H"
        assert read == f"Authorization: Bearer {TOKEN}\n"


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl_sends_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And to the server itself: no proxy that the shell names gets it."""
    with scripted_server() as server, scripted_server() as proxy:
        server.replies = proxy.replies = [ok({})]
        for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("BANYAN_URL", server.url)
        monkeypatch.setenv("BANYAN_TOKEN", TOKEN)
        assert cli.run(["submit", "--curl", "--name", "pasted", "true"]) == 0
        shown = capsys.readouterr().out
        assert not server.asked
        subprocess.run(["sh", "-c", shown], check=True, timeout=60, capture_output=True)
        (asked,) = server.asked
        assert not proxy.asked
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.path == "/tasks"
    assert json.loads(asked.body)["name"] == "pasted"


@pytest.mark.parametrize("path", TOLD, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_tells_to_show_a_token(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"""(-H|--header)[ =]["']Authorization""", text)
    assert not re.search(r"--oauth2-bearer|curl[^\n]* (-u|--user) ", text)
    for line in re.findall(r"[|] curl[^\n]* -H @-", text):
        assert "--noproxy" in line, "the server of this machine is asked by no proxy"
    for match in re.finditer(r">\s*\S*token\b", text):
        before = text[max(0, match.start() - 300) : match.start()]
        if "account create" in before:
            assert "umask 077" in before, match


@pytest.mark.parametrize(
    ("mode", "told"), [(0o644, "everybody"), (0o604, "everybody"), (0o600, ""), (0o400, "")]
)
def test_a_token_that_others_can_read_is_warned_of(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], place: Path, mode: int,
    told: str,
) -> None:  # fmt: skip
    file = place / "worker.token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(mode)
    assert read_token(file) == TOKEN
    with scripted_server() as server:
        server.replies = [ok({"_items": [], "_meta": {"max_results": 25, "page": 1}})]
        assert cli.run(["ls", "--url", server.url, "--token-file", str(file)]) == 0
        assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    advice = f"{file} can be read by {told} (mode {mode:04o}): chmod 600 {file}"
    assert [one.getMessage() for one in caplog.records] == ([advice] if told else [])
    assert (advice in capsys.readouterr().err) is bool(told)


def test_a_completion_says_nothing_of_it(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "worker.token").write_text(TOKEN)
    (place / "worker.token").chmod(0o644)
    command = click.Command("x", params=[click.Option(["--x"])])
    with scripted_server() as server, click.Context(command) as context:
        server.replies = [ok({"_items": [{"_id": "5" * 24, "host": "rack7", "mode": "active"}]})]
        context.params = {"url": server.url, "token_file": str(place / "worker.token")}
        complete_workers(context, command.params[0], "rack")
        assert server.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert capsys.readouterr().err == ""


def test_who_else_can_read_a_file(place: Path) -> None:
    file = place / "worker.token"
    file.touch(mode=0o644)
    link = place / "link"
    link.symlink_to(file)
    file.chmod(0o644)
    assert "everybody" in told_of_readers(link)
    place.chmod(0o700)
    assert not told_of_readers(file)
    assert not told_of_readers(Path("/dev/null"))


def test_a_request_as_curl_goes_the_way_that_the_client_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANYAN_TOKEN", TOKEN)
    for url, direct in (
        ("http://127.0.0.1:5100", True),
        ("unix:///run/banyan/server.sock", True),
        ("https://head.example.org:5100", False),  # a proxy sees no token in what is encrypted
    ):
        assert cli.run(["ls", "--curl", "--url", url]) == 0
        assert ("--noproxy '*'" in capsys.readouterr().out) == direct
