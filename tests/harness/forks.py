"""A fork of the test itself, and what it says."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

_SECONDS = 30  # then a child that waits for ever is killed, and its answer is none


def in_fork(call: Callable[[], Any]) -> Any:
    """What it returns in a fork of this process, as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(_SECONDS)
            os.write(writing, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as told:
        said = told.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the fork waited for ever"
    return json.loads(said)
