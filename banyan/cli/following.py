"""A task's output brought to this process's own standard output and error, as it comes.

Called by `run` and `log`. It must never write what could take a terminal over, unless asked.
"""

import os
import sys
import threading
from collections.abc import Iterable

from banyan.cli.terminal import Cleaner
from banyan.client.output import Output
from banyan.client.transport import Transport


def follow_to_here(transport: Transport, task: str, raw: bool, first: int | None = None) -> None:
    """Brings both streams until the task has ended, each to its own; in order if they are one.

    first: the attempt to begin with; left out: the newest.
    """
    if _one_place():
        write(Output(transport, task, None).follow_from(first), 1, raw)
        return
    pumps = [_Pump(transport, task, stream, raw, first) for stream in ("stdout", "stderr")]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
        if pump.trouble is not None:
            raise pump.trouble


def write(pieces: Iterable[bytes], descriptor: int, raw: bool) -> None:
    """Writes bytes as they come; to a terminal without its control characters."""
    sys.stdout.flush()
    cleaner = Cleaner() if os.isatty(descriptor) and not raw else None
    for piece in pieces:
        _write_all(descriptor, cleaner.feed(piece) if cleaner else piece)
    if cleaner:
        _write_all(descriptor, cleaner.rest())


class _Pump(threading.Thread):
    """One stream; a Transport is for one thread, so each has its own."""

    def __init__(
        self, transport: Transport, task: str, stream: str, raw: bool, first: int | None
    ) -> None:
        super().__init__(daemon=True)  # Ctrl-C does not wait for what may still come
        self.trouble: Exception | None = None
        self._pieces = Output(transport.clone(), task, stream).follow_from(first)
        self._descriptor = 1 if stream == "stdout" else 2
        self._raw = raw

    def run(self) -> None:
        try:
            write(self._pieces, self._descriptor, self._raw)
        except BrokenPipeError:
            pass  # nobody reads it any more; the task goes on
        except Exception as trouble:
            self.trouble = trouble


def _one_place() -> bool:
    """Whether standard output and error are the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
