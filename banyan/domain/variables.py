"""Which variables a task's environment may have: what a process can have and a person can read.

Judged by the server and by a run without one. The whole environment of a shell passes, with the
functions that it exports (`BASH_FUNC_module%%`) and names with dots.
"""

from collections.abc import Mapping

# Visible ASCII, without what ends a name; MongoDB takes a `$` at the beginning for its own.
NAME = r"[!-#%-<>-~][!-<>-~]*"
NAME_LENGTH_MAX = 256
COUNT_MAX = 1024
BYTES_MAX = 256 * 1024  # of all names and values
_ONE_BYTES_MAX = 128 * 1024 - 2  # Linux starts no process with a longer one, `=` and NUL included


def wrong_with_sizes(environment: Mapping[str, object]) -> str | None:
    """What is too large; None: nothing. Values that are no text do not count."""
    total = 0
    for name, value in environment.items():
        size = len(name.encode()) + (len(value.encode()) if isinstance(value, str) else 0)
        if size > _ONE_BYTES_MAX:
            return f"{name[:NAME_LENGTH_MAX]} is larger than 128 KiB: no process can have that"
        total += size
    return f"larger than {BYTES_MAX >> 10} KiB" if total > BYTES_MAX else None
