"""Signals that end a process, as far as whoever started it lets them.

Called by what goes on until it is told to end: the supervisor, a worker, a run without a server.
"""

import signal
from collections.abc import Callable

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def heed(handler: Callable[..., None]) -> None:
    """The handler gets each of `ENDING`.

    But for those that were ignored from the start: `nohup` keeps the hangup of a terminal away,
    and a script the Ctrl-C from what it runs in the background.
    """
    for number in ENDING:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
