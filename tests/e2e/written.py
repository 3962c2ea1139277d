"""Runs commands as they are written in the documentation, in a shell of their own."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.stack import Stack
from tests.harness.processes import ROOT


def shell(
    stack: Stack, directory: Path, commands: str, strict: bool = True, **environment: str
) -> str:
    """What `bash` prints of these commands, with `banyan` and `python3` on its PATH.

    strict: the first command that fails ends it, and the test.
    """
    with_banyan(directory)
    more = {**stack.environment, "CREDENTIALS": str(stack.credentials), **environment}
    return bash(directory, commands, more, strict)


def with_banyan(directory: Path) -> None:
    """Puts `banyan` and `python3` into `.programs` there."""
    programs = directory / ".programs"
    programs.mkdir(exist_ok=True)
    for name, words in {"banyan": "-m banyan", "python3": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o755)


def bash(
    directory: Path, commands: str, environment: Mapping[str, str], strict: bool = True
) -> str:
    """What `bash` prints of these commands, with what `with_banyan` has put there."""
    done = subprocess.run(
        ["bash", *(["-euo", "pipefail"] if strict else []), "-c", commands],
        cwd=directory,
        env={
            **os.environ,
            "PATH": f"{directory / '.programs'}:{os.environ['PATH']}",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert not strict or done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def in_order(expected: str, output: str) -> None:
    """Each line that is expected stands in the output (or begins a line), in this order."""
    lines = iter(output.splitlines())
    for wanted in expected.strip("\n").splitlines():
        assert any(line.startswith(wanted) for line in lines), f"{wanted!r} not in:\n{output}"


def indented(text: str, heading: str) -> str:
    """The indented commands under a heading of a document."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    return "".join(line[4:] + "\n" for line in section.splitlines() if line.startswith("    "))


def read(name: str) -> str:
    """A document of the project."""
    return (ROOT / name).read_text()
