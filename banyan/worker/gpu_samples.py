"""What is used of an attempt's GPUs, looked up beside the agent's loop.

A driver may take seconds, and one that has lost a GPU may never answer: the loop, which tells the
launcher how long to trust the lease, must not wait for it.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from banyan.worker import gpus

_log = logging.getLogger(__name__)

_WAITING_MAX = 16

Tell = Callable[[str, Mapping[str, Any]], None]


class GpuSamples:
    """Passes samples on, those of attempts that have GPUs with what is used of them."""

    def __init__(self, tell: Tell) -> None:
        """`tell` is called from a thread of its own where there are GPUs to look at."""
        self._tell = tell
        self._asked: queue.Queue[tuple[str, Mapping[str, Any], Sequence[int]]]
        self._asked = queue.Queue(_WAITING_MAX)
        self._thread: threading.Thread | None = None

    def add(self, attempt: str, sample: Mapping[str, Any], indexes: Sequence[int]) -> None:
        """Returns at once; where the driver does not keep up, samples go without GPUs."""
        if indexes:
            self._thread = self._thread or self._started()
            try:
                self._asked.put_nowait((attempt, sample, indexes))
                return
            except queue.Full:
                pass
        self._tell(attempt, sample)

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="gpus", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while True:
            attempt, sample, indexes = self._asked.get()
            self._tell(attempt, {**sample, "gpus": _used(indexes)})


def _used(indexes: Sequence[int]) -> list[dict[str, Any]]:
    try:
        return gpus.usage_of(indexes)
    except Exception:  # a library of another kind or age: the next samples are wanted, too
        _log.exception("what is used of GPUs cannot be read")
        return []
