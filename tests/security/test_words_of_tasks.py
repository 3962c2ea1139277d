"""Words of a task that no program can be given, or not in the worker's locale: they are its own.

What the kernel is told is bytes. A word that cannot be one ends the start of its task, and nothing
else; in a locale that is not UTF-8 all words reach their task as they do in one that is.
"""

import errno
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.errors import EXIT_USAGE, BanyanError
from banyan.worker.environment import base_environment
from banyan.worker.pipes import Pipes
from banyan.worker.secrets_file import PREFIX, SecretMissing, Secrets
from banyan.worker.standalone.taskfile import read_tasks
from tests.harness import Processes
from tests.harness.processes import MARK
from tests.worker.crew import Crew
from tests.worker.launched import PATH, Launched, alive
from tests.worker.test_run_as import needs_root, nobody

LATIN = "en_US.ISO-8859-1"
WORD = "\u6e2c\u5b9a"  # in no character set of Europe
HALF = "\ud800"
AS_WHOM = pytest.mark.parametrize("user", [None, pytest.param("nobody", marks=needs_root)])


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale that is not UTF-8."""
    place = tmp_path_factory.mktemp("locales")
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(place / LATIN)]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no locale can be made here")
    return {"LOCPATH": str(place), "LC_ALL": LATIN}


@pytest.fixture
def loud(tmp_path: Path) -> Iterator[Launched]:
    """A launcher that may have something to complain about."""
    state = tmp_path / "loud"
    state.mkdir()
    launched = Launched(state)
    yield launched
    launched.end()
    assert launched.process.returncode in (0, -9)  # it may be ended before all is said


def whom(user: str | None) -> dict[str, Any]:
    return {"user": nobody()} if user else {}


def others_run(launcher: Launched) -> None:
    ended, output = launcher.run("echo hello")
    assert (ended["code"], output) == (0, b"hello\n")


# --- Words that are none -------------------------------------------------------------------------


@AS_WHOM
@pytest.mark.parametrize(
    "start",
    [
        {"argv": [HALF]},
        {"argv": [f"/bin/{HALF}"]},
        {"argv": ["echo", HALF]},
        {"argv": ["echo"], "env": {"A": HALF}},
        {"argv": ["echo"], "env": {HALF: "a"}},
        {"argv": ["echo"], "env": {"PATH": f"/{HALF}:{PATH}"}},
        {"argv": ["echo"], "cwd": f"/{HALF}"},
        {"argv": ["echo", "\0"]},
        {"argv": ["\0"]},
        {"argv": ["echo"], "env": {"A=B": "a"}},
    ],
    ids=ascii,
)
def test_a_word_that_cannot_be_written_ends_its_own_task_alone(
    launcher: Launched, start: dict[str, Any], user: str | None
) -> None:
    other = launcher.shell("exec sleep 1000")
    ended = launcher.ended(launcher.start(**start, **whom(user)))
    assert ended["code"] == 126
    assert ended["reason"].encode(), "a server can keep what it is told"
    others_run(launcher)
    heard = [(each["is"], each.get("attempt")) for each in launcher.heard]
    assert ("ended", other) not in heard


def test_what_was_to_come_after_it_begins(launcher: Launched) -> None:
    first = launcher.shell("read x", timeout_seconds=None, env={"A": "b"})
    second = launcher.start([HALF], after=first)
    third = launcher.shell("exit 3", after=first)
    assert launcher.ended(second)["code"] == 126
    assert launcher.ended(third)["code"] == 3


@pytest.mark.parametrize(
    "start",
    [
        {"argv": [1]},
        {"argv": ["true"], "env": {"A": 1}},
        {"argv": ["true"], "cwd": 1},
        {"argv": ["true"], "user": {"uid": 0}},
        {"argv": ["true"], "limits": {"nonsense": 1}},
    ],
    ids=ascii,
)
def test_a_start_that_fails_as_nobody_has_foreseen_ends_its_own_task_alone(
    loud: Launched, start: dict[str, Any]
) -> None:
    ended = loud.ended(loud.start(**start))
    assert ended["code"] == 126
    assert "it could not be started: " in ended["reason"]
    others_run(loud)
    assert "Traceback" in (loud.state_directory / "launcher.stderr").read_text()


def test_so_does_one_whose_process_is_there_already(loud: Launched, tmp_path: Path) -> None:
    limits = {"cpus": [-1], "nice": 0}
    attempt = loud.shell(f"echo $$ > {tmp_path}/pid; exec sleep 1000", limits=limits)
    ended = loud.ended(attempt)
    assert (ended["code"], "ValueError" in ended["reason"]) == (126, True)
    if (tmp_path / "pid").exists():
        assert not alive(int((tmp_path / "pid").read_text() or 0))
    others_run(loud)


class Full:
    """An epoll of a user who has as many as there may be."""

    def register(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, "too many")

    def unregister(self, *_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "never there")


def test_pipes_that_the_loop_cannot_hear_of_are_read_and_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipes = Pipes(select.epoll())
    monkeypatch.setattr(pipes, "_epoll", Full())
    reading, writing = os.pipe()
    os.write(writing, b"said")
    with pytest.raises(OSError, match="too many"):
        pipes.follow([reading], "a", [writing])
    assert pipes.read(reading, 100) == b"said"
    pipes.drop(reading)
    pipes.close_dropped()
    for closed in (reading, writing):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(closed)


# --- Another locale ------------------------------------------------------------------------------


def test_in_another_locale_words_are_what_they_are_in_utf_8(
    tmp_path: Path, latin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in latin.items():
        monkeypatch.setenv(name, value)
    place = tmp_path / WORD
    place.mkdir()
    (place / WORD).symlink_to("/bin/echo")
    launched = Launched(tmp_path)
    try:
        assert launched.ended(launched.start([WORD]))["code"] == 127
        for start in (
            {"argv": ["echo", WORD]},
            {"argv": [WORD, WORD], "env": {"PATH": str(place)}},
            {"argv": [f"./{WORD}", WORD], "cwd": str(place)},
            {"argv": ["sh", "-c", "echo $A"], "env": {"A": WORD}},
        ):
            attempt = launched.start(**start)
            assert launched.ended(attempt)["code"] == 0
            assert launched.output(attempt) == f"{WORD}\n".encode()
    finally:
        launched.end()
    assert launched.process.returncode in (0, -9)  # it may be ended before all is said


def test_a_worker_in_another_locale_goes_on(crew: Crew, latin: dict[str, str]) -> None:
    crew.worker("one", **latin)
    crew.registered()
    other = crew.submit("exec sleep 1000")
    crew.until(other, "running")
    launcher = crew.launcher()
    for command in ([WORD], f"./{WORD}"):
        assert crew.ended(crew.submit(command, max_attempt_count=1))["outcome"] == "failure"
    listed = crew.submit(["ls", "/"], env={"PATH": f"/{WORD}:{PATH}"})
    said = crew.submit(["echo", WORD])
    assert crew.ended(listed)["outcome"] == "success"
    assert crew.ended(said)["outcome"] == "success"
    crew.says(said, f"{WORD}\n".encode())
    assert (crew.launcher(), crew.state_of(other)) == (launcher, "running")


def test_its_own_paths_stay_what_they_are(
    processes: Processes, tmp_path: Path, latin: dict[str, str]
) -> None:
    for name in (b"\xe9 of Latin-1", "\u00e9 of UTF-8".encode(), WORD.encode()):
        directory = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(directory)
        file = os.fsdecode(directory + b"/tasks.jsonl")
        command = 'pwd; echo $OWN; echo "$BANYAN_RESULT_FILE"'
        task = {"name": WORD, "command": ["sh", "-c", command], "env": {MARK: processes.mark}}
        Path(file).write_text(json.dumps({**task, "cwd": "."}))
        run = processes.banyan("worker", "--standalone", file, environment=latin)
        assert run.wait(60) == 0, run.stderr
        (said,) = Path(f"{file}.d").glob("*.out")
        assert said.read_bytes().splitlines()[2].startswith(directory + b"/tasks.jsonl.d/")


def test_what_tasks_get_of_its_own_environment_has_the_same_bytes(latin: dict[str, str]) -> None:
    script = (
        "import os; from banyan.worker.environment import base_environment;"
        "from banyan.worker.secrets_file import Secrets;"
        "print(ascii([base_environment(os.environ)['PATH'],"
        "Secrets(None).resolved({'A': {'secret': 'a'}})['A']]))"
    )
    own = {**os.environ, **latin, "PATH": "/\u00e9:/bin", f"{PREFIX}A": WORD}
    python = [sys.executable, "-c", script]
    said = subprocess.run(python, env=own, check=True, capture_output=True, text=True).stdout
    assert said.strip() == ascii(["/\u00e9:/bin", WORD])
    assert base_environment({"PATH": "/\udce9"}) == {"PATH": "/\udce9"}


# --- Where they are read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        {"command": [HALF]},
        {"command": f"echo {HALF}"},
        {"command": "true", "name": HALF},
        {"command": "true", "cwd": f"/{HALF}"},
        {"command": "true", "env": {"A": "\udce9"}},
        {"command": "true", "after": [HALF]},
        {"command": "true", "requested_resources": {"custom": {HALF: 1}}},
    ],
    ids=ascii,
)
def test_half_a_character_in_a_file_of_tasks_is_refused(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(f"{json.dumps({'command': 'true'})}\n{json.dumps(task)}\n")
    with pytest.raises(BanyanError, match=r"tasks.jsonl:2: .* is half a character") as refused:
        read_tasks(file)
    assert refused.value.word == "usage"
    assert refused.value.message.encode()


def test_nothing_is_run_of_such_a_file(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps({"command": "true", "name": HALF}))
    run = processes.banyan("worker", "--standalone", str(file))
    assert run.wait(30) == EXIT_USAGE
    assert "tasks.jsonl:1: " in run.stderr
    assert not (tmp_path / "tasks.jsonl.d").exists()


def test_nor_can_a_secret_hold_it(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"half": f"my{HALF}secret", "bytes": "\udce9", "whole": WORD}))
    file.chmod(0o600)
    kept = Secrets(file)
    with pytest.raises(SecretMissing, match="'half' holds half a character") as refused:
        kept.resolved({"A": {"secret": "half"}})
    assert "my" not in str(refused.value)
    for name, value in (("bytes", "\udce9"), ("whole", WORD)):
        assert kept.resolved({"A": {"secret": name}}) == {"A": value}
