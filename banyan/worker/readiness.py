"""Telling whoever has started the worker that it is at work.

Used by the agent. `banyan up` waits for it: neither a new registration nor a beat of a worker
proves that the process that was just started is the one behind it.
"""

import contextlib
import os


class Readiness:
    """A file descriptor that gets a line once, and is closed; None: nobody waits."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self) -> None:
        """The server knows this worker. Said once, however often this is called."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # who has waited for it has gone
            os.write(self._descriptor, b"\n")
            os.close(self._descriptor)
        self._descriptor = None
