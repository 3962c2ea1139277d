"""Ranges, and what is put into a command; pure functions, on generated input too."""

import codecs
import io
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.cli.stats import sparkline
from banyan.cli.sweeps import expanded, sweep_options
from banyan.client.progress import done, grouped, summary
from banyan.errors import BanyanError

TASK = {"command": ["echo", "{index}"], "env": {"MINE": "1"}}


def indexes(array: str) -> list[int]:
    tasks = expanded(TASK, array, None, None)
    assert tasks is not None
    return [int(task["env"]["BANYAN_ARRAY_INDEX"]) for task in tasks]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3", [3]), ("1-4", [1, 2, 3, 4]), ("0-9:4", [0, 4, 8]), ("5,1-2,1", [5, 1, 2]), ("7-7", [7])],
)
def test_ranges(text: str, numbers: list[int]) -> None:
    assert indexes(text) == numbers


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_a_range_is_pythons(first: int, count: int, step: int) -> None:
    expected = list(range(first, first + count + 1, step))
    assert indexes(f"{first}-{first + count}:{step}") == expected


@pytest.mark.parametrize("text", ["", "-", "1-", "2-1", "a", "1-3:0", "1-9999999", "-1"])
def test_no_ranges(text: str) -> None:
    with pytest.raises(BanyanError, match="--array"):
        expanded(TASK, text, None, None)


@pytest.mark.parametrize(("array", "at_most"), [("1-5%2", None), ("1-5", 2)])
def test_lanes_let_so_many_run_at_one_time(array: str, at_most: int | None) -> None:
    task = {**TASK, "after_any": ["before all"]}
    tasks = expanded(task, array, None, None, at_most) or []
    place = {task["_id"]: number for number, task in enumerate(tasks)}
    waits = [[place.get(one, one) for one in task["after_any"]] for task in tasks]
    own = ["before all"]
    assert waits == [own, own, [*own, 0], [*own, 1], [*own, 2]]


@pytest.mark.parametrize(
    ("array", "at_most"),
    [("1-3%0", None), ("1-3%", None), ("1-3%x", None), ("1-3%2", 2), (None, 2)],
)
def test_no_lanes(array: str | None, at_most: int | None) -> None:
    with pytest.raises(BanyanError, match="--at-most"):
        expanded(TASK, array, None, None, at_most)


def test_a_key_is_one_for_each_member_and_the_same_again() -> None:
    task = {**TASK, "dedupe_key": "daily", "_id": "f" * 24}
    once, again = (expanded(task, "1-2", None, None) or [] for _ in range(2))
    assert [one["dedupe_key"] for one in once] == ["daily:1", "daily:2"]
    without = [[{**one, "_id": ""} for one in tasks] for tasks in (once, again)]
    assert without[0] == without[1]
    with pytest.raises(BanyanError, match="--dedupe-key"):
        expanded(task, "1-3%2", None, None)


def test_members_differ_in_id_and_share_a_tag() -> None:
    tasks = expanded({**TASK, "tags": {"a": "b"}}, "1-3", None, None) or []
    assert len({task["_id"] for task in tasks}) == 3
    assert all(task["tags"] == {"array": tasks[0]["_id"], "a": "b"} for task in tasks)
    assert all(task["env"]["MINE"] == "1" for task in tasks)
    assert expanded(TASK, None, None, None) is None


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_word_stays_one_word_and_is_not_looked_into(text: str) -> None:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return
    made = expanded({"command": ["{line}"]}, None, io.StringIO("\n".join(lines)), None)
    assert made is not None
    assert [task["command"] for task in made] == [[line] for line in lines]


# --- what editors of Windows write ------------------------------------------------------------


def values(tmp_path: Path, content: bytes, option: str, variable: str) -> list[str]:
    """What the members of a sweep get of a file with this content."""
    file = tmp_path / "parameters"
    file.write_bytes(content)

    @click.command()
    @sweep_options
    def made(**asked: Any) -> list[str]:
        return [task["env"][variable] for task in expanded(TASK, **asked) or []]

    found: list[str] = made.main([option, str(file)], standalone_mode=False)
    return found


def test_a_byte_order_mark_is_no_part_of_the_first_value(tmp_path: Path) -> None:
    lines = codecs.BOM_UTF8 + b"alpha\r\nbeta\r\n"
    assert values(tmp_path, lines, "--each-line", "BANYAN_LINE") == ["alpha", "beta"]
    listed = codecs.BOM_UTF8 + b'["alpha",\r\n"beta"]'
    assert values(tmp_path, listed, "--from-json", "BANYAN_ITEM") == ["alpha", "beta"]


@pytest.mark.parametrize("option", ["--each-line", "--from-json"])
def test_a_file_in_utf_16_is_told(tmp_path: Path, option: str) -> None:
    with pytest.raises(BanyanError, match="it is UTF-16; save it as UTF-8"):
        values(tmp_path, "[1]\n".encode("utf-16"), option, "BANYAN_LINE")


def test_placeholders_are_put_in_wherever_a_task_has_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PS1", "{debian}")
    template = {
        "command": ["echo", "{index}", "${HOME}", "{{index}}", "{a,b}"],
        "name": "fit-{index}",
        "cwd": "/runs/{index}",
        "queue": "q{index}",
        "env": {"OUT": "o{index}", "PS1": "{debian}", "KEY": {"secret": "s"}},
        "tags": {"fold": "{index}"},
        "labels": {"disk": "d{index}"},
    }
    first, second = expanded(template, "1-2", None, None) or []
    array = {"array": first["_id"]}
    assert first.pop("_id") != second.pop("_id")
    index = {"BANYAN_ARRAY_INDEX": "2"}
    assert second == {
        "command": ["echo", "2", "${HOME}", "{index}", "{a,b}"],
        "name": "fit-2",
        "cwd": "/runs/2",
        "queue": "q2",
        "env": {"OUT": "o2", "PS1": "{debian}", "KEY": {"secret": "s"}, **index},
        "tags": {"fold": "2", **array},
        "labels": {"disk": "d2"},
    }
    assert first["name"] == "fit-1"


def test_a_name_that_is_the_program_s_is_so_of_each_task() -> None:
    lines = io.StringIO("/bin/echo a b\nls -l")
    template = {"command": "{line}", "name": "{line}"}
    made = expanded(template, None, lines, None) or []
    assert [task["name"] for task in made] == ["echo", "ls"]
    made = expanded({"command": ["{line}"], "name": "{line}"}, None, io.StringIO("/bin/ls\n"), None)
    assert [task["name"] for task in made or []] == ["ls"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("command", "echo {line}"), ("command", ["{line}"]), ("name", "{line}"), ("cwd", "/{line}"),
     ("env", {"A": "{line}"}), ("tags", {"a": "{line}"}), ("labels", {"a": "{line}"})],
)  # fmt: skip
def test_a_placeholder_that_nothing_fills_is_refused(field: str, value: Any) -> None:
    with pytest.raises(BanyanError, match=r"nothing fills \{line\} in .*: there is \{index\}; .*"):
        expanded({**TASK, field: value}, "1-2", None, None)


def test_the_directory_where_we_are_may_have_braces_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "{project}"
    here.mkdir()
    monkeypatch.chdir(here)
    made = expanded({**TASK, "cwd": str(here / "run-{index}")}, "7", None, None) or []
    assert made[0]["cwd"] == str(here / "run-7")


def test_the_tag_of_an_array_is_not_for_others() -> None:
    with pytest.raises(BanyanError, match="take another key"):
        expanded({**TASK, "tags": {"array": "mine"}}, "1-2", None, None)


def counted(**by: Any) -> dict[str, int]:
    return grouped({"by_state": by, "by_outcome": {"success": 2, "oom": 1, "lost": 1}})


def test_progress_is_summed_up() -> None:
    counts = counted(terminated=4, available=1, pending_cancellation=1, cancelled=2)
    assert (
        summary(counts) == "6 of 8 ended: 2 succeeded, 2 failed, 2 cancelled, 1 running, 1 waiting"
    )
    assert not done(counts)
    assert done(counted(terminated=4, cancelled=3))


def test_sparklines() -> None:
    assert sparkline([0, 1, 7]) == "▁▂█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 1, 100]) == "▁▂█"  # a little is not nothing
    assert sparkline([]) == ""
