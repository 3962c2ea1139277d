"""Runs command lines in each surrounding that the standard streams may be in.

Reads from standard input lines of JSON, each the words of one command line; writes for each what
comes of it by surrounding: {"plain": {"code", "out", "err"}, …}. Every one is a fork of this
process, in which all has been imported: hundreds of them take seconds.
"""

import gc
import importlib
import io
import json
import os
import pwd
import sys
import tempfile
from contextlib import ExitStack
from typing import IO

from banyan.cli.main import COMMANDS, main

_CLOSED = {"all closed": [0, 1, 2], "out closed": [1]}
_FULL = {"out full": [1], "both full": [1, 2]}
_ENCODINGS = {"latin-1": "latin-1"}
PLACES = ("no home", "gone")  # where it is, with streams as they should be
SURROUNDINGS = ("plain", "unread", *_CLOSED, *_FULL, *_ENCODINGS, *PLACES)


def surround(name: str) -> None:
    """Makes this process's streams as a program finds them that is started so."""
    if name == "unread":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        os.close(writer)
    if name == "no home":
        for variable in ("HOME", "BANYAN_CONFIG", *(n for n in os.environ if n.startswith("XDG_"))):
            os.environ.pop(variable, None)
        pwd.getpwuid = {}.__getitem__  # type: ignore[assignment,method-assign]
    if name == "gone":
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
    for descriptor in _FULL.get(name, ()):
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
    for descriptor in _CLOSED.get(name, ()):
        os.close(descriptor)
    for descriptor, stream in {1: "stdout", 2: "stderr"}.items():
        closed = descriptor in _CLOSED.get(name, ())
        setattr(sys, stream, None if closed else opened(descriptor, _ENCODINGS.get(name, "utf-8")))


def opened(descriptor: int, encoding: str) -> IO[str]:
    return io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding)


def begin(name: str, words: list[str], out: IO[bytes], err: IO[bytes]) -> int:
    """The process in which it goes on."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        surround(name)
        main(words)
    return child


def written(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")


def come_of(words: list[str], names: tuple[str, ...]) -> dict[str, object]:
    """In each of these surroundings, all at the same time."""
    found: dict[str, object] = {}
    with ExitStack() as files:
        begun = {}
        for name in names:
            out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            begun[name] = (begin(name, words, out, err), out, err)
        for name, (child, out, err) in begun.items():
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            found[name] = {"code": code, "out": written(out), "err": written(err)}
    return found


if __name__ == "__main__":
    for module, _ in COMMANDS.values():
        importlib.import_module(f"banyan.cli.{module}")
    for more in ("banyan.client.api", "banyan.cli.curl", "rich.table"):
        importlib.import_module(more)
    asked = [json.loads(line) for line in sys.stdin]
    gc.freeze()  # else each child copies what it only looks at
    for words in asked:
        sys.stdout.write(json.dumps(come_of(words, tuple(sys.argv[1:]) or SURROUNDINGS)) + "\n")
        sys.stdout.flush()
