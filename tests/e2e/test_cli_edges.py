"""Where a command meets what is beside it: readers that go, input, and words that are no text."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import Stack
from tests.harness import eventually


def state_of(stack: Stack, id: str) -> str:
    return str(stack.json("show", "--json", id)["state"])


@pytest.mark.parametrize("streams", ["", "2>/dev/null", "2>&1"])
@pytest.mark.parametrize("line", ["run -- sh -c", "log -f", "log -f --stream stdout", "progress"])
def test_it_ends_at_once_where_nobody_reads_and_the_task_goes_on(
    stack: Stack, tmp_path: Path, line: str, streams: str
) -> None:
    script = "echo a; until test -e on; do sleep 0.1; done; echo b"
    task = ["--cwd", str(tmp_path), "--name", tmp_path.name, "--", "sh", "-c", script]
    if line.startswith("run"):
        words = ["run", *task]
    else:
        words = [*line.split(), stack.text("submit", "-q", *task)]
    program = shlex.join([sys.executable, "-m", "banyan", *words])
    shell = ["bash", "-c", f"{program} {streams} | head -1; exit $PIPESTATUS"]
    done = subprocess.run(shell, env={**os.environ, **stack.environment}, timeout=30, check=False)
    assert done.returncode == (141 if words[0] == "run" else 0)
    id = stack.text("ls", "-q", "--name", tmp_path.name)
    assert state_of(stack, id) in ("available", "running")
    (tmp_path / "on").touch()
    stack.call("wait", id)
    assert stack.text("log", id) == "a\nb"


def test_words_that_are_no_text_arrive_byte_for_byte(stack: Stack, tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    place.mkdir()
    (place / os.fsdecode(b"M\xfcller")).write_text("contents\n")
    latin = os.fsdecode(b"M\xfcller")
    words = ["run", "--env", "X", "--", "sh", "-c", 'cat "$1"; printf "%s" "$X"', "sh", latin]
    done = stack.call(*words, cwd=place, environment={"X": latin})
    assert done.stdout == b"contents\nM\xfcller"
    listed = stack.call(
        "submit", "-q", "--each-line", "-", "ls", "{line}", input=b"\xe9\n", cwd="/"
    )
    assert len(listed.stdout.split()) == 1
    refused = stack.call("submit", "--name", latin, "true", code=2).stderr
    assert refused == b"banyan: 'M\\xfcller' is no UTF-8 text, and cannot be sent\n"


def test_input_that_no_task_reads_is_told(stack: Stack, tmp_path: Path) -> None:
    told = b"standard input is not passed on to the task"
    (tmp_path / "file").write_text("a\n")
    for words in (["run", "--", "cat"], ["submit", "--", "cat"]):
        assert told in stack.call(*words, input=b"a\n").stderr
        with (tmp_path / "file").open() as file:
            assert told in stack.call(*words, stdin=file).stderr
            assert file.read() == "a\n"  # it may be for the next command
        assert told not in stack.call(*words, input=b"").stderr
        assert told not in stack.call(*words, stdin=subprocess.DEVNULL).stderr
    assert stack.call("submit", "-q", "--", "cat", input=b"a\n").stderr == b""
    assert told not in stack.call("submit", "--each-line", "-", "cat", input=b"a\n").stderr
    assert b"no script is read" in stack.call("submit", "-", input=b"a\n", code=2).stderr


def test_input_that_comes_late_is_told_at_the_end(stack: Stack, tmp_path: Path) -> None:
    running = stack.begin(
        "run",
        "--",
        "sh",
        "-c",
        f"until test -e {tmp_path}/on; do sleep 0.1; done",
        stdin=subprocess.PIPE,
    )
    eventually(lambda: stack.text("ls", "-q", "--state", "running") != "")
    assert running.stdin is not None
    running.stdin.write(b"a\n")
    running.stdin.flush()
    (tmp_path / "on").touch()
    _, said = running.communicate(timeout=30)
    assert b"standard input is not passed on" in said
