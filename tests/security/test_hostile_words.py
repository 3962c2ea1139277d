"""What others wrote neither acts on a terminal nor, in a line to be copied, on a shell.

A task whose every text is hostile, and a malicious worker beside it; then each command, at a real
terminal and in a pipe.
"""

import json
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from banyan.cli.main import COMMANDS
from tests.contract.playing import Player, chunk, now
from tests.harness import Api, Processes, Server
from tests.harness.processes import ROOT
from tests.security.terminals import Terminal

# A title, a colour by a one-byte introducer, other directions of writing, separators, tags, DEL;
# and what a shell would run.
EVIL = (
    "\x1b]0;owned\x07\x9b31m\u202egpj\u2066\u2028x\u2029\x85\x7f\U000e0041"
    "`touch BROKEN`'$(touch BROKEN)"
)
# What is ours: colours, and how `top`, bars and what is being done are drawn.
OURS = re.compile(r"\r\x1b\[2K|\x1b\[(?:[0-9;]*m|[HJ]|2K|\d+A)")
QUEUE = "hostile"


@pytest.fixture(scope="module")
def told(server: Server) -> Mapping[str, str]:
    """The ids of a task that failed, and of one that waits for a label that nobody has."""
    player = Player(server.worker, QUEUE, labels={"evil": EVIL})
    task = {
        "name": EVIL, "command": ["sh", "-c", EVIL], "cwd": f"/{EVIL}", "env": {"EVIL": EVIL},
        "queue": QUEUE, "tags": {"evil": EVIL}, "state": "available",
    }  # fmt: skip
    made = server.provider.post("tasks", task)
    assert made.status_code == 201, made.text
    (item,) = player.claim(1)
    own = Api(server.url, item["token"])
    said = {"done": 1, "total": 2, "message": EVIL}
    answers = [
        player.report(item, time_started=now(), log=[chunk(0, EVIL.encode())]),
        own.post(f"tasks/{item['_id']}/progress", said),
        own.post(f"tasks/{item['_id']}/result", {EVIL: [EVIL]}),
        player.report(
            item, "terminated", exit_status="failure (3)", reason=EVIL, time_terminated=now()
        ),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    waits = {**task, "name": f"{EVIL} waits", "labels": {"evil": f"other {EVIL}"}}
    waiting = server.provider.post("tasks", waits)
    assert waiting.status_code == 201, waiting.text
    return {"FAILED": made.json()["_id"], "WAITS": waiting.json()["_id"]}


LINES = [
    ("ls",), ("ls", "--json"), ("ls", "--curl", "--name", EVIL), ("show", "FAILED"),
    ("show", "--json", "FAILED"), ("show", "WAITS"), ("show", f"@{EVIL}"), ("show", "@no" + EVIL),
    ("log", "FAILED"), ("log", "--state", "failed", "--queue", QUEUE), ("log", "WAITS"),
    ("log", "--tail", "1", "FAILED"), ("log", "-f", "FAILED"),
    ("wait", "FAILED"), ("wait", "--json", "FAILED"), ("wait", "--timeout", "1s", "WAITS"),
    ("explain", "FAILED"), ("explain", "WAITS"), ("explain", "--json", "WAITS"),
    ("script", "FAILED"), ("progress", "--once", "FAILED"), ("top", "--once"), ("top", "--json"),
    ("stats", "--by", "name,tags.evil,queue"), ("stats", "--json", "--by", "tags.evil"), ("usage",),
    ("ls", "--state", EVIL), ("ls", "--where", EVIL), ("ls", "--where", json.dumps({EVIL: 1})),
    ("worker", "list"), ("worker", "list", "--json"), ("worker", "drain", "no" + EVIL),
    ("worker", "resume", EVIL), ("worker", "remove", EVIL), ("release", "FAILED"),
    ("submit", "--queue", EVIL, "true"), ("submit", "--json", "--name", EVIL, "true"),
    ("submit", "--curl", "--name", EVIL, EVIL), ("run", "--queue", EVIL, "true"),
    ("set", "--priority", "5", "--name", f"{EVIL} waits"), ("set", "--queue", EVIL, "--hold"),
    ("cancel", "--yes", "--name", f"{EVIL} waits"), ("retry", "--name", EVIL, "--state", "open"),
    ("forget", "--name", EVIL, "--state", "open"), ("account", "list"),
    ("account", "create", EVIL, "--role", "worker"), ("account", "revoke", EVIL),
    ("results", "FAILED"), ("results", "--csv", "FAILED"), ("results", "--json", "FAILED"),
    ("ls", "--host", EVIL, "--outcome", EVIL), ("ls", "--since", EVIL), ("ls", f"{EVIL},{EVIL}"),
    ("log", "--no-titles", "--queue", QUEUE),
    ("config", "show", "--origin"), ("worker", "--host", EVIL), ("result", EVIL),
]  # fmt: skip
WITHOUT_OTHERS_WORDS = {"up", "down", "server", "doctor", "login", "completion"}


def test_each_command_is_among_these() -> None:
    assert {line[0] for line in LINES} | WITHOUT_OTHERS_WORDS == set(COMMANDS)


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line).replace(EVIL, "EVIL"))
def test_what_others_wrote_does_not_act_on_a_terminal(
    server: Server, told: Mapping[str, str], tmp_path: Path, line: tuple[str, ...]
) -> None:
    terminal = Terminal([sys.executable, "-m", "banyan", *filled(line, told)], tmp_path,
                        **access(server, line), TERM="xterm-256color", COLUMNS="400")  # fmt: skip
    shown = OURS.sub("", terminal.rest()).replace("\r\n", "\n")
    terminal.close()
    acts = {one for one in shown if not one.isprintable()} - {"\n", "\t"}
    if line[0] == "log":  # a task's own output stays text, whatever direction it is written in
        acts = {one for one in acts if unicodedata.category(one) == "Cc"}
    assert not acts, shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    "line", [line for line in LINES if "--json" in line], ids=" ".join
)  # fmt: skip
def test_in_a_pipe_json_is_the_same_and_as_harmless(
    server: Server, told: Mapping[str, str], processes: Processes, line: tuple[str, ...]
) -> None:
    done = processes.banyan(*filled(line, told), environment=access(server, line))
    done.wait(60)
    assert all(one.isprintable() for one in done.stdout.removesuffix("\n"))
    assert EVIL in texts(json.loads(done.stdout)) or line[0] in ("wait", "explain")


def filled(line: tuple[str, ...], told: Mapping[str, str]) -> list[str]:
    return [told.get(word, word) for word in line]


def access(server: Server, line: tuple[str, ...]) -> dict[str, str]:
    role = "admin" if line[0] == "account" else "provider"
    return {
        "BANYAN_URL": server.url, "BANYAN_TOKEN": server.tokens[role], "PYTHONPATH": str(ROOT),
        **({"BANYAN_TASK_ID": "f" * 24} if line[0] == "result" else {}),
    }  # fmt: skip


def texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [one for pair in value.items() for part in pair for one in texts(part)]
    if isinstance(value, list):
        return [one for part in value for one in texts(part)]
    return [value] if isinstance(value, str) else []


# --- Lines that people copy --------------------------------------------------------------


def run(line: str, directory: Path) -> list[str]:
    """What the line does where `banyan` and `curl` only say what they are given."""
    for name in ("banyan", "curl"):
        said = "import json, sys; print(json.dumps(sys.argv[1:]))"
        (directory / name).write_text(f"#!/bin/sh\nexec {sys.executable} -c '{said}' \"$@\"\n")
        (directory / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", line], cwd=directory, env={"PATH": f"{directory}:/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert not (directory / "BROKEN").exists()
    return list(json.loads(done.stdout))


def test_the_advice_is_a_line_to_copy(server: Server, tmp_path: Path) -> None:
    Player(server.worker, "advised")
    for value in (EVIL, "plain", "a b;c"):
        task = {"command": "true", "queue": "advised", "labels": {"x": value}}
        id = server.provider.post("tasks", {**task, "state": "available"}).json()["_id"]
        (cause,) = server.provider.get(f"tasks/{id}/explain").json()["causes"]
        assert run(cause["advice"].removeprefix("start one: "), tmp_path) == [
            "worker", "--label", f"x={value}",
        ]  # fmt: skip


def test_a_request_as_curl_is_a_line_to_copy(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    words = ("submit", "--curl", "--name", EVIL, "--tag", f"a={EVIL}", EVIL)
    shown = processes.banyan(*words, environment=access(server, words))
    assert shown.wait(60) == 0
    given = run(shown.stdout, tmp_path)
    (sent,) = [json.loads(given[at + 1]) for at, one in enumerate(given) if one == "-d"]
    sent = sent[0] if isinstance(sent, list) else sent
    assert (sent["name"], sent["tags"], sent["command"]) == (EVIL, {"a": EVIL}, [EVIL])


def test_a_script_runs_the_task_and_nothing_else(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / EVIL.replace("/", "")).mkdir()
    task = {
        "name": f"{EVIL}\ntouch BROKEN", "command": ["printf", "%s|", EVIL], "env": {"E": EVIL},
        "cwd": str(tmp_path / EVIL),
    }  # fmt: skip
    id = server.provider.post("tasks", task).json()["_id"]
    words = ("script", id)
    script = processes.banyan(*words, environment=access(server, words))
    assert script.wait(60) == 0
    done = subprocess.run(["sh"], input=script.stdout, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{EVIL}|", done.stderr
    assert shlex.quote(EVIL) in script.stdout
    assert not list(tmp_path.rglob("BROKEN"))
