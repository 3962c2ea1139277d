"""What `banyan worker invite` prints, copied into a shell elsewhere: no history has the token."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import Api, Processes, Server, Started, eventually
from tests.security.terminals import SHELLS, Terminal

COMMANDS = {**SHELLS, "dash": ["dash", "-i"]}
# What it is given, and what lies there by then.
BANYAN = "#!/bin/sh\necho GIVEN $*\nstat -c 'MODE %a' $5\necho \"TOKEN $(cat $5)\"\n"


shells = pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])


@pytest.mark.parametrize("space", ["", " "])
@shells
def test_the_token_is_in_no_history(
    server: Server, processes: Processes, tmp_path: Path, shell: str, space: str
):
    demand(shell)
    line, token = invited(server, processes, f"{shell}{len(space)}")
    assert token not in line
    assert len(line) < 150
    (tmp_path / "banyan").write_text(BANYAN)
    (tmp_path / "banyan").chmod(0o755)
    terminal = Terminal(COMMANDS[shell], tmp_path, HISTCONTROL="")
    terminal.type("echo rea''dy\n")
    eventually(lambda: terminal.shows("ready"), 30)
    terminal.type(f"{space}{line}\n")
    eventually((tmp_path / "banyan-worker.token").exists, 30)
    terminal.type(f"{token}\n")
    eventually(lambda: terminal.shows(f"TOKEN {token}"), 30)
    kept = tmp_path / "banyan-worker.token"
    assert f"GIVEN worker --url {server.url} --token-file {kept}" in terminal.shown
    assert "MODE 600" in terminal.shown
    if shell != "dash":  # which has none
        terminal.shown = ""
        terminal.type("history; echo do''ne\n")
        eventually(lambda: terminal.shows("done"), 30)
        assert token not in terminal.shown
        assert terminal.shown.count("head -n 1") == 1
    terminal.close()


@shells
def test_what_somebody_has_put_where_it_is_typed_does_not_get_the_token(
    server: Server, processes: Processes, tmp_path: Path, shell: str
):
    demand(shell)
    line, token = invited(server, processes, f"planted-{shell}")
    home, typed = tmp_path / "home", tmp_path / "typed"
    for directory in (home, typed):
        directory.mkdir()
    (home / "banyan").write_text(BANYAN)
    (home / "banyan").chmod(0o755)
    for name in ("banyan-worker.token", "banyan-ca.pem"):
        (typed / name).write_text("planted")
    environment = {**os.environ, "HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}"}
    done = subprocess.run(
        [shell, "-c", line],
        cwd=typed, env=environment, input=f"{token}\n", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert f"TOKEN {token}" in done.stdout, done.stderr
    assert {file.read_text() for file in typed.iterdir()} == {"planted"}


def test_the_two_are_told_apart(server: Server, processes: Processes):
    """On a terminal: what is to be copied first, and what then; in a pipe there are two lines."""
    said = invite(server, processes, "apart")
    line, token = said.stdout.splitlines()
    kept = "~/banyan-worker.token"
    assert line.startswith(f"(umask 077 && head -n 1 > {kept}) && banyan worker --url ")
    assert token.isprintable()
    assert "run this on the other machine:" in said.stderr
    assert "type this token when it waits:" in said.stderr
    assert token not in said.stderr


def test_no_name_is_spent_where_nobody_could_use_it(server: Server, processes: Processes):
    """The server listens on loopback alone: no other machine reaches it."""
    refused = ask(server, processes, "spent", code=2)
    assert "is for this machine alone" in refused.stderr
    assert "--address" in refused.stderr
    accounts = server.admin.get("accounts", max_results=1000).json()["_items"]
    assert "spent" not in [one["name"] for one in accounts]


def test_who_was_invited_before_gets_one_more_token(server: Server, processes: Processes):
    first, second = (invited(server, processes, "again")[1] for _ in range(2))
    assert first != second
    for token in (first, second):
        assert Api(server.url, token).get("workers").status_code == 200
    other = ("again", "--address", server.url, "--queue", "night")
    assert "other roles or queues" in ask(server, processes, *other, code=4).stderr
    taken = ask(server, processes, "provider", "--address", server.url, code=4)
    assert "another name" in taken.stderr


def demand(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")


def invited(server: Server, processes: Processes, name: str) -> list[str]:
    return invite(server, processes, name).stdout.splitlines()


def invite(server: Server, processes: Processes, name: str) -> Started:
    return ask(server, processes, name, "--address", server.url)


def ask(server: Server, processes: Processes, *words: str, code: int = 0) -> Started:
    access = {"BANYAN_URL": server.url, "BANYAN_TOKEN": server.tokens["admin"]}
    done = processes.banyan("worker", "invite", *words, environment=access)
    assert done.wait(60) == code, done.stderr
    return done
