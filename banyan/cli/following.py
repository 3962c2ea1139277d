"""A task's output brought to this process's own standard output and error, as it comes.

Called by `run` and `log`. It must never write what could take a terminal over, unless asked.
"""

import contextlib
import os
import sys
from collections.abc import Iterable

from banyan.cli.streams import while_read, write_all
from banyan.cli.terminal import Cleaner
from banyan.client.output import Output
from banyan.client.transport import Transport


def follow_to_here(transport: Transport, task: str, raw: bool, first: int | None = None) -> None:
    """Brings both streams until the task has ended, each to its own; in order if they are one.

    first: the attempt to begin with; left out: the newest. Errors: BrokenPipeError as soon as
    nobody reads standard output any more.
    """

    def pieces(stream: str | None) -> Iterable[bytes]:
        # A Transport is for one thread, so each stream has its own.
        return Output(transport.clone(), task, stream).follow_from(first)

    if _one_place():
        while_read(lambda: write(pieces(None), 1, raw))
        return
    while_read(
        lambda: write(pieces("stdout"), 1, raw), lambda: _write_if_read(pieces("stderr"), 2, raw)
    )


def write(pieces: Iterable[bytes], descriptor: int, raw: bool) -> None:
    """Writes bytes as they come; to a terminal without its control characters."""
    sys.stdout.flush()
    cleaner = Cleaner() if os.isatty(descriptor) and not raw else None
    for piece in pieces:
        write_all(descriptor, cleaner.feed(piece) if cleaner else piece)
    if cleaner:
        write_all(descriptor, cleaner.rest())


def _write_if_read(pieces: Iterable[bytes], descriptor: int, raw: bool) -> None:
    with contextlib.suppress(BrokenPipeError):  # the other stream goes on
        write(pieces, descriptor, raw)


def _one_place() -> bool:
    """Whether standard output and error are the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:
        return False
