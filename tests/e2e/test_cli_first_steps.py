"""What somebody meets who is new to it: slips, empty places, tasks that cannot begin."""

import time

import pytest

from tests.e2e.stack import Stack, interrupt
from tests.harness import eventually


def test_an_empty_place_says_so_to_a_person_and_keeps_its_titles_in_a_pipe(stack: Stack) -> None:
    assert stack.on_a_terminal("ls", "--name", "nobody").strip() == "no tasks"
    assert stack.text("ls", "--name", "nobody").split()[:2] == ["ID", "NAME"]


def test_run_says_why_a_task_that_cannot_begin_waits(stack: Stack) -> None:
    begun = time.monotonic()
    running = stack.begin("run", "--gpus", "77", "--", "true")
    assert running.stderr is not None
    # On a machine that is out of breath its worker may be missed at first.
    line = next(one for one in map(bytes.decode, running.stderr) if "77 gpus wanted" in one)
    assert line.startswith("banyan: it waits: ")
    assert "->" in line
    assert time.monotonic() - begun > 1  # one that is about to begin is not talked over
    following = stack.begin("log", "-f", "last")
    assert following.stderr is not None
    assert "77 gpus wanted" in following.stderr.readline().decode()
    assert interrupt(following)[0] == 130
    code, said = interrupt(running)
    assert code == 130
    assert "wanted" not in said  # it is said once


def test_a_program_that_is_not_there_is_named(stack: Stack) -> None:
    told = stack.call("run", "--name", "gone", "--", "nosuchprogram", code=127).stderr.decode()
    assert told.startswith("banyan: task ")
    assert "no program 'nosuchprogram'" in told
    told = stack.call("log", "@gone").stderr.decode()
    assert " has written nothing: no program 'nosuchprogram'" in told
    for words, code in (("wait", 1), ("explain", 0), ("show", 0)):
        told = stack.call(words, "@gone", code=code).stderr.decode()
        assert told.endswith("--env PATH gives it yours, --env ALL all variables\n")
    silent = stack.text("submit", "-q", "--", "true")
    stack.call("wait", silent)
    assert stack.call("log", silent).stderr == b""


def test_how_a_task_ended_is_not_said_twice(stack: Stack) -> None:
    told = stack.call("run", "--timeout", "300ms", "--", "sleep", "60", code=1).stderr.decode()
    assert told.endswith(": timeout\n")
    assert stack.call("run", "--", "sh", "-c", "exit 3", code=3).stderr == b""
    running = stack.begin("run", "--name", "long", "--", "sleep", "60")
    eventually(lambda: stack.text("ls", "-q", "--state", "running", "--name", "long"))
    stack.call("cancel", "@long")
    _, said = running.communicate(timeout=30)
    assert said.decode().endswith(": cancelled on request\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ls", "--token", "bny_0_0"), "the server does not know this token"),
        (("submit", "--memory", "3x", "--", "true"), "--memory '3x': write a size like"),
        (("submit", "--priority", "huge", "--", "true"), "--priority: a whole number or one of"),
        (("show", "6740a1b2c3d4e5f601234567"), "there is no task 6740a1b2c3d4e5f601234567"),
    ],
)
def test_a_slip_is_told_in_one_or_two_lines(
    stack: Stack, words: tuple[str, ...], said: str
) -> None:
    done = stack.call(*words, code={"ls": 5, "submit": 2, "show": 3}[words[0]])
    told = done.stderr.decode()
    assert said in told
    assert "_issues" not in told
    assert len(told.splitlines()) <= 2
