"""A script as COMMAND: by what it is run, what of it is read, and what is said about it."""

import codecs
from pathlib import Path
from typing import Any

import click
import pytest

from banyan.cli import directives, verdict
from banyan.cli.new_task import task_options

DOS = "its lines end as in DOS (CR LF), which breaks scripts; convert it, as with dos2unix"


def script(tmp_path: Path, content: bytes, mode: int = 0o644) -> Path:
    path = tmp_path / "job.sh"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("first", "interpreter"),
    [
        (b"", ["/bin/sh"]),
        (b"echo hi", ["/bin/sh"]),
        (b"#!", ["/bin/sh"]),
        (b"#!/bin/bash", ["/bin/bash"]),
        (b"#! /bin/bash -eu -x ", ["/bin/bash", "-eu -x"]),
        (b"#!/usr/bin/env python3\r", ["/usr/bin/env", "python3"]),
        (codecs.BOM_UTF8 + b"#!/bin/bash", ["/bin/bash"]),
    ],
)
def test_a_script_that_is_not_executable_is_run_by_its_interpreter(
    tmp_path: Path, first: bytes, interpreter: list[str]
) -> None:
    path = script(tmp_path, first + b"\n")
    assert directives.runnable(path, ["job.sh", "a b"]) == [*interpreter, str(path), "a b"]
    path.chmod(0o755)
    assert directives.runnable(path, ["job.sh", "a b"]) == [str(path), "a b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#!/bin/sh\n#BANYAN --cores 2\n# SBATCH\necho\n#SBATCH -n 1\n", []),
        (b"#!/bin/sh\n#SBATCH -n 1\n#SBATCH -c 4\n#$ -N x\n#$HOME\n",
         [f"its {mark} lines are not read; options stand in #BANYAN lines"
          for mark in ("#$", "#SBATCH")]),
        (b"#!/bin/sh\r\necho\r\n", [DOS]),
        (codecs.BOM_UTF8 + b"#!/bin/sh\n",
         ["it begins with a byte order mark, which no shell expects; save it without"]),
    ],
)  # fmt: skip
def test_what_would_surprise_is_said(tmp_path: Path, content: bytes, said: list[str]) -> None:
    path = script(tmp_path, content)
    expected = [f"banyan: {path}: {remark}" for remark in said]
    assert directives.remarks([str(path), "x"]) == expected


def test_of_other_programs_the_line_is_looked_at_that_names_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool").write_bytes(b"#!/usr/bin/env python3\r\nprint()\r\n")
    (tmp_path / "data").write_bytes(b"a\r\nb\r\n")
    monkeypatch.chdir(tmp_path)
    assert directives.remarks(["./tool"]) == [f"banyan: ./tool: {DOS}"]
    for other in ("tool", "./data", "./gone", "./", "/dev/null", "a\0/b", ""):
        assert directives.remarks([other]) == []


def test_directives_are_found_behind_a_byte_order_mark_and_in_dos_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = script(tmp_path, codecs.BOM_UTF8 + b"#!/bin/bash\r\n#BANYAN --name 'of it'\r\n")

    @click.command()
    @click.pass_obj
    @task_options
    def made(client: Any, task: dict[str, Any]) -> dict[str, Any]:
        return task

    task = made.main([str(path), "x"], standalone_mode=False)
    assert (task["name"], task["command"]) == ("of it", ["/bin/bash", str(path), "x"])
    assert DOS in capsys.readouterr().err


# --- a program that was not found --------------------------------------------------------------


class Told:
    """A client, and the server's one answer: the exit status."""

    def __init__(self, status: str) -> None:
        self.transport = self
        self.body = {"exit_status": status}

    def request(self, *_: str) -> "Told":
        return self


def advice(capsys: pytest.CaptureFixture[str], code: int, **task: Any) -> str:
    found = {"_id": "1", "outcome": "failure", "command": ["mytool"], **task}
    assert verdict.exit_code_of(Told(f"failure ({code})"), found) == code  # type: ignore[arg-type]
    return capsys.readouterr().err


def test_where_a_program_is_not_found_its_path_is_thought_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_launcher = {"reason": "no program 'mytool' in PATH (/bin)"}
    for task in (by_launcher, {"command": "mytool", "reason": None}, {"env": {"HOME": "/"}}):
        assert "--env PATH" in advice(capsys, 127, **task)
    for task in ({"env": {"PATH": "/mine"}}, {"reason": "'./x': its interpreter ..."}):
        assert "--env" not in advice(capsys, 127, **task)
    assert "--env" not in advice(capsys, 126, **by_launcher)


def test_a_line_that_was_taken_for_a_program_is_thought_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "--shell" in advice(capsys, 127, command=["sleep 5 && echo x"])
    assert "--shell" not in advice(capsys, 127, command=["my tool", "x"])
