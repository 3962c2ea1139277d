"""Becomes another program that the kernel kills as soon as the process that asked ends.

`banyan.server.processes.spawn` runs this file by its path, as
`python -I -S last_will.py PARENT_PID PROGRAM ARGUMENTS...`. It must import nothing of
Banyan: it stands between a start and its program, and costs some 15 ms as it is.

Why not a `preexec_fn`: that runs Python between fork and exec, which can lock up in a
parent that has threads, and the parent has some (the Mongo driver's).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Take the parent's process id and the program from `arguments`; never returns."""
    parent = int(arguments[0])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above: then nobody would ever send the signal.
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(arguments[1], arguments[1:])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
