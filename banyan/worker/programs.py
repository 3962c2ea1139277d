"""A program's file that the kernel would not start: what a shell would do with it, or why not.

Called by `spawning` and `forking` once a start has failed, so that others pay nothing; as whoever
was to run it. Standard library only. It must read nothing that may keep it waiting.
"""

import contextlib
import errno
import os
from collections.abc import Sequence

SHELL = "/bin/sh"

_MARK = b"\xef\xbb\xbf"  # what editors of Windows put before a text: the byte order mark
_ELF = b"\x7fELF"
_FIRST_BYTES = 4096
_NAME_BYTES_MAX = 256  # so much of a `#!` line the kernel reads


def by_shell(program: str, argv: Sequence[str], error: OSError) -> list[str] | None:
    """The command by which a shell runs it: a text without a `#!` line. None: it would not."""
    if error.errno != errno.ENOEXEC:
        return None
    first = _beginning(program)
    if _interpreter(first.removeprefix(_MARK)) or b"\0" in first.partition(b"\n")[0]:
        return None
    return [SHELL, "--", program, *argv[1:]]


def cause(program: str, error: OSError) -> str:
    """What is wrong with it; empty where the error alone says as much."""
    first = _beginning(program)
    interpreter = _interpreter(first)
    if error.errno == errno.ENOENT:
        return _missing(first, interpreter)
    if error.errno == errno.ENOEXEC:
        return _foreign(first, interpreter)
    return _forbidden(program, interpreter) if error.errno == errno.EACCES else ""


def _missing(first: bytes, interpreter: str) -> str:
    if interpreter.endswith("\r"):
        ends = "its lines end as in DOS (CR LF), so its interpreter would be"
        return f"{ends} {interpreter!r}; convert it, as with dos2unix"
    if interpreter:
        return f"its interpreter {interpreter!r} does not exist"
    loader = "the loader that it names does not exist: it was built for another system"
    return loader if first.startswith(_ELF) else ""


def _foreign(first: bytes, interpreter: str) -> str:
    if first.startswith(_MARK):
        return "a byte order mark hides its '#!' line; save it without one"
    if interpreter:
        return f"its interpreter {interpreter!r} cannot be started"
    built = "it was built for another kind of machine"
    return built if first.startswith(_ELF) else "it is neither a program nor a script"


def _forbidden(program: str, interpreter: str) -> str:
    if os.path.isdir(program):
        return "it is a directory"
    if os.path.exists(program) and not os.access(program, os.X_OK):
        return "it is not executable; chmod +x makes it so"
    if interpreter and os.path.exists(interpreter) and not _is_program(interpreter):
        return f"its interpreter {interpreter!r} is not executable"
    with contextlib.suppress(OSError):
        if os.statvfs(program).f_flag & os.ST_NOEXEC:
            return "its file system is mounted noexec; name its interpreter, or move it"
    return ""


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _interpreter(first: bytes) -> str:
    """What its `#!` line names; empty without one."""
    if not first.startswith(b"#!"):
        return ""
    line = first[2:_NAME_BYTES_MAX].partition(b"\n")[0].strip(b" \t")
    return os.fsdecode(line.replace(b"\t", b" ").partition(b" ")[0])


def _beginning(program: str) -> bytes:
    """Empty where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        file = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return os.read(file, _FIRST_BYTES)
        finally:
            os.close(file)
    return b""
