"""`python -P -m banyan.client.call`: the task's side of a Python callable.

Started by a worker as the command of a task that an Executor submitted. The call comes in the
environment; what it returns or raises goes by a pipe that the worker has opened. Standard output
and standard error are the callable's alone.
"""

import contextlib
import os
import stat
import sys
import traceback
from typing import Any

from banyan.client import calls, module_paths

_WORDS_LENGTH_MAX = 10_000


def main() -> int:
    """Makes the call; the exit code is 1 where it raised, or what it gave to `sys.exit`."""
    answer = _Answer(os.environ.pop(calls.ANSWER, ""))
    packed = os.environ.pop(calls.CALL)
    calls.pickler()  # before there are further places to look in
    places = os.environ.pop(module_paths.VARIABLE, "")
    module_paths.add(places, os.environ.pop(module_paths.NAMES_VARIABLE, ""))
    try:
        call, args, kwargs = calls.call_in(packed)
        told = calls.pack((True, call(*args, **kwargs)))
        if not answer.takes(told):
            raise ValueError("what it returned is too large: write it to a file, return its name")
        code = 0
    except BaseException as error:  # whatever it is, it is told there
        told, code = _packed_error(error, answer), _exit_code(error)
    answer.give(told)
    return code


class _Answer:
    """The pipe to the worker; without one, as where a task is run by hand, nothing is told."""

    def __init__(self, told: str) -> None:
        """told: as `calls.ANSWER` has it."""
        self._process = os.getpid()
        self._file, self._bytes_max = map(int, told.split() or (-1, 0))
        if told:
            os.set_inheritable(self._file, False)
            self._is = os.fstat(self._file)

    def takes(self, answer: bytes) -> bool:
        """Whether it is not too large."""
        return self._file < 0 or len(answer) <= self._bytes_max

    def give(self, answer: bytes) -> None:
        """By this process only: a fork of it that has come back from the call has nothing to say.

        Errors: OSError where the callable has closed the pipe.
        """
        if self._file < 0 or os.getpid() != self._process:
            return
        now = os.fstat(self._file)
        if not stat.S_ISFIFO(now.st_mode) or now.st_ino != self._is.st_ino:
            raise OSError("the callable has closed the file by which its answer goes")
        left = memoryview(answer)
        while left:
            left = left[os.write(self._file, left) :]


def _packed_error(error: BaseException, answer: _Answer) -> bytes:
    """The error, if it can be sent and made again there; else one with its words."""
    try:
        packed = calls.pack((False, error))
        _, again = calls.answer_in(packed)
        if calls.is_exception(again) and answer.takes(packed):
            return packed
    except BaseException:  # noqa: S110 - an exception may hold anything, and do anything
        pass
    return calls.pack((False, RuntimeError(calls.words_of(error)[:_WORDS_LENGTH_MAX])))


def _exit_code(error: BaseException) -> int:
    """What Python would end with. Says on standard error what it would say."""
    with contextlib.suppress(BaseException):  # it may be closed; what it says is its own code
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        elif not isinstance(error.code, int | None):
            sys.stderr.write(f"{error.code}\n")
    code: Any = error.code if isinstance(error, SystemExit) else 1
    return (code or 0) if isinstance(code, int | None) else 1


if __name__ == "__main__":
    sys.exit(main())
