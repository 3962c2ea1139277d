"""Standard input that a command leaves alone: whoever has put something in is told so.

A task may run on another machine, and long after this command has ended: it gets an empty input.
Nothing is refused for it, and nothing read: what is there may be meant for the next command, as in
a loop of `while read`.
"""

import fcntl
import os
import stat
import sys
import termios

from banyan.cli.output import say

_TOLD = (
    "banyan: standard input is not passed on to the task: let it read a file "
    "(or say so: < /dev/null)"
)


def tell_of_input() -> bool:
    """Says so where there is something to read now; whether it was said."""
    if _waiting_bytes():
        say(_TOLD)
        return True
    return False


def _waiting_bytes() -> int:
    """Of a pipe, a socket or a file; at a terminal nobody has typed for the task."""
    try:
        found = os.fstat(0)
        if stat.S_ISREG(found.st_mode):
            return max(0, found.st_size - os.lseek(0, 0, os.SEEK_CUR))
        if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
            told = fcntl.ioctl(0, termios.FIONREAD, bytes(4))
            return int.from_bytes(told, sys.byteorder)
    except OSError:
        pass
    return 0
