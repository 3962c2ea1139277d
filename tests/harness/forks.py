"""A fork of the test itself, and what it says."""

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

_SECONDS = 30


def in_fork(call: Callable[[], Any]) -> Any:
    """What it returns in a fork of this process, as JSON; fails for one that waits for ever."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as told:
        if not select.select([told], [], [], _SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        said = told.read()
    os.waitpid(child, 0)
    assert said, "the fork ended without a word, or would have waited for ever"
    return json.loads(said)
