"""Arrays by their handle, and tasks that wait for all that a command has submitted."""

import csv
import re
from pathlib import Path

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


def test_what_ran_on_a_host_since_then_and_failed(stack: Stack) -> None:
    host = stack.json("worker", "list", "--json")[0]["host"]
    sweep = ("--name", "where", "--array", "1-3", "--", "test", "{index}", "!=", "2")
    stack.call("wait", stack.text("submit", *sweep), code=1)
    stack.text("submit", "--name", "where", "--hold", "--", "true")
    asked = ("ls", "-q", "--name", "where", "--host", host)
    assert len(stack.text(*asked, "--since", "yesterday").split()) == 3
    (failed,) = stack.text(*asked, "--since", "1h", "--outcome", "failed").split()
    assert stack.text(*asked, "--owner", "provider", "--state", "failed") == failed
    assert stack.text(*asked, "--since", "2000-01-01", "--outcome", "success").count("\n") == 1
    assert stack.text("ls", "-q", "--name", "where", "--host", "nowhere") == ""
    assert stack.text("ls", "-q", "--name", "where", "--since", "0s") == ""
    shown = stack.text("show", failed)
    assert f"\nhost      {host}\n" in shown
    assert shown.splitlines()[-2].split()[:4] == ["ATTEMPT", "EXIT", "STATUS", "HOST"]
    stack.call("retry", "--name", "where", "--host", host, "--outcome", "failure")
    stack.call("wait", failed, code=1)
    told = stack.call("ls", "--outcome", "odd", code=2).stderr
    assert told.startswith(b"banyan: --outcome 'odd' is none of success, failure")


def test_the_results_of_a_sweep_are_a_table(stack: Stack, tmp_path: Path) -> None:
    grid = tmp_path / "grid.jsonl"
    grid.write_text('{"rate": 0.1, "note": "a,b"}\n{"rate": 2, "note": null}\n')
    told = """test $1 = 2 || banyan result '{"rate": 7, "all": [1, {"x": "y"}], "ok": true}'"""
    script = ["--name", "tabled", "--tag", "set=results", "--", "sh", "-c", told, "sh", "{rate}"]
    array = stack.text("submit", "--from-json", str(grid), *script)
    stack.call("wait", array)
    first, second = stack.text("ls", "-q", array).split()[::-1]
    assert list(csv.reader(stack.text("results", "--csv", array).splitlines())) == [
        ["task", "index", "rate", "note", "state", "result.rate", "all", "ok"],
        [first, "1", "0.1", "a,b", "success", "7", '[1, {"x": "y"}]', "true"],
        [second, "2", "2", "", "success", "", "", ""],
    ]
    plain = stack.text("results", array).splitlines()
    assert plain[0].split()[:4] == ["TASK", "INDEX", "RATE", "NOTE"]
    assert len(plain) == 3
    one, _ = stack.json("results", "--json", array)
    assert one["parameters"] == {"rate": 0.1, "note": "a,b"}
    assert one["result"]["all"] == [1, {"x": "y"}]
    stack.call("results", "--csv", "@nobody", code=3)


def test_results_without_an_index_have_names_and_what_tells_them_apart(stack: Stack) -> None:
    for number in ("1", "2"):
        words = ("--tag", "set=apart", "--tag", f"n={number}", "--", "banyan", "result", number)
        stack.call("wait", stack.text("submit", "-q", "--name", f"apart-{number}", *words))
    lines = stack.text("results", "--csv", "--tag", "set=apart").splitlines()
    assert lines[0] == "task,name,n,state,result"
    assert [line.split(",")[1:] for line in lines[1:]] == [
        ["apart-1", "1", "success", "1"], ["apart-2", "2", "success", "2"],
    ]  # fmt: skip


def test_output_without_titles_is_what_the_tasks_wrote(stack: Stack) -> None:
    sweep = ("--array", "1-3", "--", "sh", "-c", "printf {index},x; test {index} = 2 || echo")
    array = stack.text("submit", *sweep)
    stack.call("wait", array)
    assert stack.text("log", "--no-titles", array) == "1,x\n2,x\n3,x"
    assert stack.text("log", array).count("==>") == 3


def test_of_many_failures_a_few_are_told(stack: Stack) -> None:
    array = stack.text("submit", "--array", "1-23", "--", "test", "{index}", "=", "1")
    first, *told, left = stack.call("wait", array, code=1).stderr.decode().splitlines()
    assert first == "1 task succeeded, 22 did not"
    assert len(told) == 20
    assert left == "banyan: and 2 more: see them with 'banyan ls --state failed'"


def test_what_a_list_leaves_out_is_told(stack: Stack) -> None:
    array = stack.text("submit", "--hold", "--array", "1-3", "--", "true")
    done = stack.call("ls", "-q", "-n", "2", array)
    assert len(done.stdout.split()) == 2
    assert done.stderr == b"these are the newest 2; there are more: -n N, or --all\n"
    assert stack.call("ls", "-q", "-n", "3", array).stderr == b""
    child = stack.text("submit", "-q", "--name", "child", "--after-any", array, "--", "true")
    shown = stack.text("show", child)
    assert " more" not in shown
    stack.call("cancel", "--yes", array)
    wide = stack.text("submit", "--hold", "--array", "1-200", "--", "true")
    child = stack.text("submit", "-q", "--after-any", wide, "--", "true")
    (named,) = [one for one in stack.text("show", child).splitlines() if one.startswith("after")]
    assert named.endswith(" and 197 more")
    assert len(stack.json("show", "--json", child)["after_any"]) == 200
    stack.call("cancel", "--yes", wide)


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
