"""Arrays by their handle, and tasks that wait for all that a command has submitted."""

import re

import pytest

from banyan.client.api import Client
from tests.e2e.stack import Stack
from tests.harness import eventually


def test_an_array_has_a_handle(stack: Stack) -> None:
    sweep = ("--name", "fold-{index}", "--array", "3-5", "--", "test", "{index}", "!=", "4")
    handle = stack.text("submit", *sweep)
    assert re.fullmatch("@[0-9a-f]{24}", handle)
    stack.text("submit", "-q", "--name", "fold-4", "--", "true")
    stack.call("wait", handle, code=1)
    listed = [line.split() for line in stack.text("ls", handle).splitlines()]
    assert [line[1:4] for line in listed] == [
        ["INDEX", "NAME", "STATE"],
        ["5", "fold-5", "success"], ["4", "fold-4", "failure"], ["3", "fold-3", "success"],
    ]  # fmt: skip
    stack.call("retry", handle)
    stack.call("wait", handle, code=1)
    stack.call("forget", "--yes", handle, "--name", "fold-3")  # whose id the handle has
    assert len(stack.text("ls", "-q", handle).splitlines()) == 2
    told = stack.call("show", handle, code=2).stderr.decode()
    assert told.endswith(f"see banyan ls {handle}\n")
    stack.call("ls", "-q", "@000000000000000000000000")
    stack.call("wait", "@000000000000000000000000", code=3)


def test_where_nothing_is_left_to_do_it_is_said(stack: Stack) -> None:
    handle = stack.text("submit", "--array", "1-2", "--", "true")
    held = stack.text("submit", "--hold", "--array", "1-2", "--", "true")
    stack.call("wait", handle)
    for verb, of, why in [
        ("cancel", handle, "all of them have ended"),
        ("retry", handle, "none of them has failed"),
        ("release", handle, "none of them is held"),
        ("forget", held, "none of them has ended"),
    ]:
        told = stack.call(verb, of).stderr.decode()
        assert told == f"banyan: nothing to do for 2 tasks: {why}\n"
    assert b"there is no such task" in stack.call("cancel", "@nobody", code=3).stderr
    stack.call("cancel", "--yes", held)


def test_after_a_name_is_after_its_newest_submission(stack: Stack) -> None:
    failed = stack.text("submit", "-q", "--name", "part", "--", "false")
    stack.call("wait", failed, code=1)
    stack.text("submit", "-q", "--name", "part", "--array", "1-3", "--", "false")
    new = stack.text("submit", "-q", "--name", "part", "--array", "1-3", "--", "true")
    sum_up = ("submit", "-q", "--after", "@part", "--", "true")
    done = stack.call(*sum_up)
    child = done.stdout.decode().strip()
    assert sorted(stack.json("show", "--json", child)["after"]) == sorted(new.splitlines())
    told = "banyan: @part means the array that was submitted last; earlier ones are left out\n"
    assert done.stderr.decode() == told
    stack.call("wait", child)
    alone = stack.text("submit", "-q", "--name", "part", "--hold", "--", "true")
    child = stack.text(*sum_up)
    assert stack.json("show", "--json", child)["after"] == [alone]
    only = stack.text("submit", "-q", "--name", "once", "--hold", "--array", "1-2", "--", "true")
    done = stack.call("submit", "-q", "--after", "@once", "--hold", "--", "true")
    assert done.stderr == b""
    shown = stack.json("show", "--json", done.stdout.decode().strip())
    assert sorted(shown["after"]) == sorted(only.splitlines())
    assert b"no task named nobody" in stack.call("submit", "--after", "@nobody", "a", code=3).stderr


def test_the_newest_of_a_name_is_not_the_one_with_the_largest_id(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who submits by the API may choose ids."""
    monkeypatch.setenv("BANYAN_CONFIG", stack.environment["BANYAN_CONFIG"])
    failed = {"_id": "f" * 24, "name": "chosen", "command": "false", "state": "available"}
    with Client() as client:
        client.submit(failed)
    stack.call("wait", "f" * 24, code=1)
    newer = stack.text("submit", "-q", "--name", "chosen", "--hold", "--", "true")
    done = stack.call("submit", "-q", "--after", "@chosen", "--", "true")
    assert stack.json("show", "--json", done.stdout.decode().strip())["after"] == [newer]
    assert b"earlier ones are left out" in done.stderr


def test_a_task_may_wait_for_more_than_it_can_name(stack: Stack) -> None:
    sweep = ("--tag", "set=wide", "--array", "1-1100", "--name", "wide", "--hold", "--", "true")
    array = stack.text("submit", *sweep)
    child = stack.text("submit", "-q", "--after", "@wide", "--tag", "set=wide", "--", "echo", "sum")
    assert stack.json("show", "--json", "last")["_id"] == child
    groups = stack.json("show", "--json", child)["after"]
    assert len(groups) == 2
    parents = [one for group in groups for one in stack.json("show", "--json", group)["after"]]
    assert len(set(parents)) == 1100
    first = array[1:]
    stack.call("cancel", first)
    eventually(lambda: stack.json("show", "--json", child)["state"] == "cancelled")
    stack.call("cancel", "--yes", "--tag", "set=wide")
    stack.call("show", "@nobody", code=3)
    stack.call("wait", "@nobody", code=3)
    stack.call("wait", code=2)
