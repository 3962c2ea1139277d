"""Tells who waits for a task that does not begin why it does not: once, and when that changes.

Used by `run` and `log -f`. It asks beside the command, and what goes wrong in it is no trouble of
the command's.
"""

import contextlib
import threading
from collections.abc import Iterator

from banyan.cli.output import say
from banyan.client.api import Client
from banyan.printable import harmless

_FIRST_SECONDS = 2.0
_AGAIN_SECONDS = 10.0
_WAITING = ("inactive", "available")


@contextlib.contextmanager
def told_why_it_waits(client: Client, task: str) -> Iterator[None]:
    """While the block lasts and the task has not begun."""
    over = threading.Event()
    # Ctrl-C does not wait for an answer.
    asking = threading.Thread(target=_ask, args=(client.clone(), task, over), daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()


def _ask(client: Client, task: str, over: threading.Event) -> None:
    told: set[str] = set()
    pause = _FIRST_SECONDS
    with contextlib.suppress(Exception), client:
        while not over.wait(pause):
            pause = _AGAIN_SECONDS
            explained = client.explain(task)
            if explained["state"] not in _WAITING:
                return
            for cause in explained["causes"]:
                if cause["cause"] not in told and not over.is_set():
                    told.add(cause["cause"])
                    advice = f" -> {cause['advice']}" if cause.get("advice") else ""
                    say(f"banyan: it waits: {harmless(cause['message'] + advice)}")
