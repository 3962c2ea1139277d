"""The marks of tasks in the environments of processes.

What a process shows as its environment is memory of its own choice, of any size. So a bounded part
of it is read, by a process of ours (see `process_reader`). Used by the launcher, and by the agent
where a launcher has died. Standard library only.
"""

import time
from typing import NamedTuple

from banyan.worker.process_reader import ProcessReader, Question

_ORDINARY_BYTES = 128 << 10  # so much is read of each environment
_SPARE_BYTES = 64 << 20  # and so much more of all of them together in a second


class Mark(NamedTuple):
    """Of which worker a process says that it is, and of which attempt; None: of none."""

    worker: str | None = None
    attempt: str | None = None


class Marks:
    """What cannot be read has no mark."""

    def __init__(self, reader: ProcessReader) -> None:
        self._reader = reader
        self._spare_bytes = _SPARE_BYTES
        self._spare_since = time.monotonic()

    def of(self, pid: int) -> Mark:
        """The mark in the environment of a process."""
        answer = self._reader.ask(Question.MARKS, pid, _ORDINARY_BYTES + self._spare())
        if answer is None:
            return Mark()
        spent, *values = answer.split(b"\0")
        self._spare_bytes -= max(int(spent) - _ORDINARY_BYTES, 0)
        return Mark(*[value.decode(errors="replace") or None for value in values])

    def _spare(self) -> int:
        if time.monotonic() - self._spare_since >= 1:
            self._spare_since = time.monotonic()
            self._spare_bytes = _SPARE_BYTES
        return max(self._spare_bytes, 0)
