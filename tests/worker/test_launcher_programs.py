"""Files that the kernel does not start: what a shell runs, runs; of the rest the cause is told."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.worker import programs
from banyan.worker.identity import user_for
from banyan.worker.options import Options
from tests.worker.launched import Launched

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start as another user")
# `posix_spawn` starts a task of the worker's own user, a fork one of another.
WHO = pytest.mark.parametrize("who", [None, pytest.param("nobody", marks=NEEDS_ROOT)])
MARK = b"\xef\xbb\xbf"


@pytest.fixture
def there() -> Iterator[Path]:
    """A directory that every user may look into."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def as_user(who: str | None) -> dict[str, Any]:
    if who is None:
        return {}
    user = user_for(Options(url="http://127.0.0.1:1", token_file=Path("token"), run_as=who))
    assert user
    return {"user": user.to_json()}


def file_of(there: Path, content: bytes, mode: int = 0o755) -> str:
    path = there / "program"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@WHO
@pytest.mark.parametrize("name", ["whole path", "./program", "program"])
def test_a_text_without_an_interpreter_is_run_by_the_shell(
    launcher: Launched, there: Path, who: str | None, name: str
):
    path = file_of(there, b'#BANYAN --cores 1\necho "$# $1, $2"; exit 3\n')
    argv = [path if name == "whole path" else name, "a b", "-c"]
    env = {"PATH": f"/bin:/usr/bin:{there}"}
    attempt = launcher.start(argv, cwd=str(there), env=env, **as_user(who))
    assert launcher.ended(attempt)["code"] == 3
    assert launcher.output(attempt) == b"2 a b, -c\n"


@WHO
def test_an_empty_file_does_nothing(launcher: Launched, there: Path, who: str | None):
    attempt = launcher.start([file_of(there, b"")], **as_user(who))
    assert launcher.ended(attempt)["code"] == 0


def test_a_name_that_looks_like_an_option_is_none(launcher: Launched, there: Path):
    (there / "-e").mkdir()
    file_of(there / "-e", b"echo ran\n")
    attempt = launcher.start(["-e/program"], cwd=str(there))
    assert launcher.ended(attempt)["code"] == 0
    assert launcher.output(attempt) == b"ran\n"


OTHER_MACHINE = b"\x7fELF\x01\x02\x01" + bytes(9) + b"\0\2\0\x02" + bytes(100)
CAUSES = [
    (b"#!/bin/sh\r\necho hi\r\n", 127, "lines end as in DOS (CR LF), so its interpreter"),
    (b"#! /no/such/python -u\n", 127, "its interpreter '/no/such/python' does not exist (No such"),
    (b"#!/etc\n", 126, "its interpreter '/etc' is not executable (Permission denied)"),
    (b"#!/etc/passwd\n", 126, "its interpreter '/etc/passwd' is not executable"),
    (MARK + b"#!/usr/bin/env python3\nimport os\n", 126, "a byte order mark hides its '#!' line"),
    (b"#!/" + b"x" * 300 + b"\n", 126, "its interpreter '/xxx"),
    (OTHER_MACHINE, 126, "it was built for another kind of machine (Exec format error)"),
    (b"\x00\x01\x02", 126, "it is neither a program nor a script (Exec format error)"),
]


@WHO
@pytest.mark.parametrize(("content", "code", "cause"), CAUSES)
def test_the_cause_is_told(
    launcher: Launched, there: Path, who: str | None, content: bytes, code: int, cause: str
):
    path = file_of(there, content)
    ended = launcher.ended(launcher.start([path], **as_user(who)))
    assert (ended["code"], ended["why"]) == (code, None)
    assert ended["reason"].startswith(f"{path!r}: ")
    assert cause in ended["reason"]


@WHO
def test_a_file_that_is_not_executable_is_told_by_its_path_too(
    launcher: Launched, there: Path, who: str | None
):
    path = file_of(there, b"#!/bin/sh\n", mode=0o644)
    for program, cause in (
        (path, "it is not executable; chmod +x makes it so (Permission denied)"),
        (str(there), "it is a directory (Permission denied)"),
        (f"{path}x", "No such file or directory"),
    ):
        ended = launcher.ended(launcher.start([program], **as_user(who)))
        assert ended["reason"] == f"{program!r}: {cause}"


def test_a_program_whose_loader_is_not_there(launcher: Launched, there: Path):
    """As when one for another C library is started."""
    whole = Path(shutil.which("true") or "/bin/true").resolve().read_bytes()
    loader = next(each for each in whole.split(b"\0") if b"/ld-" in each and each[:1] == b"/")
    path = file_of(there, whole.replace(loader, loader.replace(b"/ld-", b"/xx-"), 1))
    ended = launcher.ended(launcher.start([path]))
    assert ended["code"] == 127
    assert "the loader that it names does not exist" in ended["reason"]


@pytest.mark.parametrize(("content", "code", "cause"), CAUSES)
def test_a_shell_ends_with_the_same_code(there: Path, content: bytes, code: int, cause: str):
    """But for a byte order mark, behind which it takes any language for its own."""
    path = file_of(there, content)
    ended = subprocess.run(["bash", "-c", 'exec "$1"', "-", path], capture_output=True)
    assert ended.returncode == code or content.startswith(MARK) or content.startswith(b"#!/xxx")


def test_what_cannot_be_read_keeps_nobody_waiting(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    not_a_program = OSError(8, "Exec format error")
    assert programs.by_shell(str(pipe), ["pipe"], not_a_program) is not None
    assert programs.cause(str(tmp_path / "gone"), not_a_program)
