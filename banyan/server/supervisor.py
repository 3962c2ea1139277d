"""The process that `banyan up` and `banyan server` are: it starts the rest and ends it.

The command line calls `run(options)` and ends with what it returns. Everything that it
starts (mongod, server processes, a worker) ends with it, even when it is killed. It keeps
no state of its own: whatever counts is in the database.
"""

import contextlib
import json
import logging
import os
import signal
import threading
from types import FrameType

from banyan import logs, profiles, signals
from banyan.errors import EXIT_OK, BanyanError
from banyan.server import keeping, submitters
from banyan.server.directory import DirectoryLock
from banyan.server.options import Options
from banyan.server.stack import Stack

__all__ = ["Options", "run"]

logger = logging.getLogger(__name__)


class _Ended(BaseException):
    """A signal came. Not an Exception: nothing may take it for a failure and go on."""


def run(options: Options) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP (see `banyan.signals`); the exit code.

    Errors: `data_directory_in_use`, `no_mongod`; `usage` where the port is taken;
    `unavailable` where something does not come up or keeps dying.
    """
    logs.begin("supervisor", logging.WARNING, "banyan: ")
    keeping.rules()  # what is no rule is told now, and not by upkeep, again and again
    submitters.check()
    woken = threading.Event()
    stack = Stack(options, woken)
    _heed_signals(woken)
    try:
        with DirectoryLock(options.data) as lock:
            try:
                stack.start()
                _announce(stack, options.json_line)
                stack.watch(lock)
            finally:
                _ignore_signals()
                stack.stop()
                with contextlib.suppress(OSError, BanyanError):
                    profiles.forget_local(stack.credentials)
    except _Ended:
        pass
    return EXIT_OK


def _heed_signals(woken: threading.Event) -> None:
    """From now on a signal ends what goes on, and a child's end wakes who watches."""

    def end(number: int, frame: FrameType | None) -> None:
        raise _Ended

    signals.heed(end)
    signal.signal(signal.SIGCHLD, lambda number, frame: woken.set())


def _ignore_signals() -> None:
    """The end is on its way: a second Ctrl-C must not leave half of it behind."""
    for number in signals.ENDING:
        signal.signal(number, signal.SIG_IGN)


def _announce(stack: Stack, json_line: bool) -> None:
    """Tell whoever started this that it is ready, and where."""
    try:
        profiles.remember_local(stack.url, stack.credentials, stack.tls_ca, stack.socket)
    except (OSError, BanyanError) as error:
        logger.warning("the command line's profile was not written: %s", error)
    if json_line or logs.in_json():
        text = json.dumps({"url": stack.url, "credentials": str(stack.credentials)})
    else:
        text = (
            f"Banyan is ready at {stack.url}\n"
            f"  tokens   {stack.credentials}\n"
            "  try      banyan run -- echo hello\n"
            "  end      banyan down, or Ctrl-C; the next start goes on from here"
        )
    try:
        os.write(1, os.fsencode(f"{text}\n"))
    except OSError as problem:
        logger.warning("standard output cannot be told that it is ready: %s", problem.strerror)
