"""`python -P -m banyan.client.call`: the task's side of a Python callable.

Started by a worker as the command of a task that an Executor submitted. The call comes in the
environment; what it returns or raises goes to standard output as one marked line.
"""

import os
import sys
import traceback

from banyan.client import calls, module_paths


def main() -> int:
    """Makes the call; the exit code is 1 where it raised."""
    mark = os.environ.pop(calls.MARK)
    calls.pickler()  # before there are further places to look in
    module_paths.add(os.environ.pop(module_paths.VARIABLE, ""))
    call, args, kwargs = calls.unpack(os.environ.pop(calls.CALL))
    try:
        told = calls.pack((True, call(*args, **kwargs)))
        if len(told) > calls.ANSWER_CHARACTERS_MAX:
            raise ValueError("what it returned is too large: write it to a file, return its name")
        code = 0
    except Exception as error:
        traceback.print_exc()
        told, code = _packed_error(error), 1
    sys.stdout.flush()
    # On a line of its own, whatever was printed before it.
    sys.stdout.write(f"\n{mark} {told}\n")
    sys.stdout.flush()
    return code


def _packed_error(error: Exception) -> str:
    try:
        return calls.pack((False, error))
    except Exception:  # an exception may hold anything
        return calls.pack((False, RuntimeError(f"{type(error).__name__}: {error}")))


if __name__ == "__main__":
    sys.exit(main())
