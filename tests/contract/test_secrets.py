"""Secrets by reference: a task names what only its worker knows, and that is all that is kept."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.asking import make, read, refused
from tests.harness import Server

NAMED = {"KEY": {"secret": "db_password"}, "PLAIN": "x"}


def test_a_reference_is_stored_and_answered_as_it_is(server: Server):
    task = make(server.provider, env=NAMED)
    assert read(server.provider, task)["env"] == NAMED
    same = server.provider.patch(f"tasks/{task['_id']}", {"env": {"KEY": {"secret": "other"}}})
    assert same.status_code == 200, same.text
    assert read(server.provider, task)["env"] == {"KEY": {"secret": "other"}}


@pytest.mark.parametrize(
    "value",
    [
        {}, {"secret": ""}, {"secret": "a b"}, {"secret": "1a"}, {"secret": "a-b"}, {"secret": 1},
        {"secret": None}, {"secret": ["a"]}, {"secret": {"$gt": ""}}, {"secret": "a", "more": "b"},
        {"secret": "a" * 65}, {"secret": "a\n"}, {"value": "a"}, ["a"], None, 1, True,
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(server: Server, value: Any):
    answer = server.provider.post("tasks", {"command": "true", "env": {"KEY": value}})
    assert "env" in refused(answer, 422, "invalid")


def test_the_script_asks_for_the_secret_and_has_everything_else(server: Server):
    task = make(server.provider, env=NAMED)
    script = server.provider.get(f"tasks/{task['_id']}/script").text
    assert ': "${KEY:?set it to the secret db_password}"; export KEY\n' in script
    assert "export PLAIN=x\n" in script


def test_what_no_shell_can_name_goes_along_in_the_script(server: Server, tmp_path: Path):
    named = {
        "BASH_FUNC_hello%%": "() { echo hello $1; }", "my.dotted-name": "a b", "PLAIN": "$x",
        "--chdir": "/nowhere", "-i": "1", "--": "end",
    }  # fmt: skip
    task = make(server.provider, command=["bash", "-c", 'hello "$PLAIN"; env'], env={})
    answer = server.provider.patch(f"tasks/{task['_id']}", {"env": named})
    assert answer.json()["env"] == named
    script = tmp_path / "script"
    script.write_text(server.provider.get(f"tasks/{task['_id']}/script").text)
    said = subprocess.run(["sh", script], capture_output=True, text=True, check=True).stdout
    assert said.startswith("hello $x\n")
    shown = said.splitlines()
    assert {"my.dotted-name=a b", "--chdir=/nowhere", "-i=1", "--=end"} <= set(shown)


def test_a_directory_that_looks_like_an_option_is_gone_to_in_the_script(
    server: Server, tmp_path: Path
):
    (tmp_path / "-P").mkdir()
    task = make(server.provider, command=["pwd"], cwd="-P")
    script = server.provider.get(f"tasks/{task['_id']}/script").text
    said = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert said.decode().strip() == str(tmp_path / "-P")
