"""Words that are no UTF-8 text: carried byte for byte by a line for the shell, or refused."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banyan.client.byte_words import carried, quoted
from banyan.client.transport import Transport
from banyan.errors import BanyanError

LATIN = os.fsdecode(b"M\xfcller caf\xe9.txt")
WORDS = st.lists(st.binary().filter(lambda word: b"\0" not in word), min_size=20, max_size=40)


def run(task: dict[str, Any]) -> bytes:
    """What the task prints; all of it can be sent."""
    for text in (*task["command"], task.get("cwd", "/"), *task["env"].values()):
        assert text.encode()
    return subprocess.run(
        task["command"], cwd=task.get("cwd"), env={**os.environ, **task["env"]},
        stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip


@settings(max_examples=20)
@given(WORDS)
def test_a_shell_makes_the_very_bytes_of_a_quoted_word(words: list[bytes]) -> None:
    line = " ".join(map(quoted, map(os.fsdecode, words)))
    assert run({"command": ["/bin/sh", "-c", f"printf '%s\\0' {line}"], "env": {}}) == b"".join(
        word + b"\0" for word in words
    )


def test_a_task_of_text_is_left_alone() -> None:
    for command in (["cat", "café 日本"], "cat 'a b'", [], None):
        task = {"command": command, "cwd": "/ä", "env": {"A": "ö", "S": {"secret": "s"}}}
        assert carried(task) is task


@pytest.mark.parametrize(
    "wrong",
    [{"cwd": 5}, {"cwd": ["/"]}, {"command": ["echo", 1]}, {"command": 7}, {"command": {"a": 1}},
     {"env": ["A=1"]}, {"env": "A"}, {"env": {"A": 1, 2: "b"}}, {"name": 5},
     {"command": ["echo", 1, LATIN]}, {"command": 7, "cwd": LATIN}],
)  # fmt: skip
def test_what_is_neither_text_nor_a_path_is_left_to_the_server(wrong: dict[str, Any]) -> None:
    assert carried(wrong) is wrong
    made = carried({"command": ["cat", LATIN], **wrong})
    assert all(made[name] == value for name, value in wrong.items())


def test_paths_are_taken_as_text(tmp_path: Path) -> None:
    task = {"command": [Path("/bin/pwd")], "cwd": tmp_path, "env": {"A": tmp_path, "B": 1}}
    place = str(tmp_path)
    assert carried(task) == {
        "command": ["/bin/pwd"], "cwd": place, "env": {"A": place, "B": 1},
    }  # fmt: skip
    assert task["cwd"] is tmp_path
    odd = tmp_path / LATIN
    odd.mkdir()
    assert run(carried({"command": ["pwd"], "cwd": odd})) == os.fsencode(odd) + b"\n"


def test_command_directory_and_variables_arrive(tmp_path: Path) -> None:
    place = tmp_path / LATIN
    place.mkdir()
    show = 'printf "%s|" "$@" "$A" "$B"; pwd'
    task = {
        "command": ["sh", "-c", show, "sh", LATIN, "it's \\n", ""], "cwd": str(place),
        "env": {"A": LATIN, "B": "b", "S": {"secret": "s"}}, "name": "n",
    }  # fmt: skip
    made = carried(task)
    assert made["env"] == {"B": "b", "S": {"secret": "s"}}
    assert made["name"] == "n"
    del made["env"]["S"]
    whole = os.fsencode(LATIN)
    assert (
        run(made) == b"|".join([whole, b"it's \\n", b"", whole, b"b", os.fsencode(place)]) + b"\n"
    )


def test_a_line_for_the_shell_stays_one(tmp_path: Path) -> None:
    (tmp_path / LATIN).write_text("contents")
    line = f"cat '{LATIN}' | tr a-z A-Z; echo \"{LATIN}\""
    made = carried({"command": line, "cwd": str(tmp_path)})
    assert run(made) == b"CONTENTS" + os.fsencode(LATIN) + b"\n"


def test_the_name_of_a_program_shows_that_it_is_no_text() -> None:
    assert carried({"command": [f"/{LATIN}"], "name": LATIN})["name"] == "M\ufffdller caf\ufffd.txt"
    assert carried({"command": ["cat", LATIN], "name": "\udce8"})["name"] == "\udce8"
    assert "name" not in carried({"command": ["cat", LATIN]})


@pytest.mark.parametrize(
    "options",
    [{"json": {"tags": [{"k": LATIN}]}}, {"json": {LATIN: 1}}, {"params": {"q": LATIN}},
     {"params": {"where": {"n": LATIN}}}],
)  # fmt: skip
def test_what_cannot_be_carried_is_named(options: Any) -> None:
    transport = Transport("http://127.0.0.1:9", "t", retry_seconds=0)
    with pytest.raises(BanyanError, match=r"caf\\xe9.* is no UTF-8 text") as refused:
        transport.request("POST", "/tasks", **options)
    assert refused.value.word == "invalid"
