"""Says on a terminal what is being done where that takes longer than a second."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

import click

SILENT_SECONDS = 1.0
_AGAIN_SECONDS = 0.5


class Working:
    """While the block lasts: "cancelling: 12,000 of 50,000", or for how long it has worked.

    Called with how many are done, it shows that. Its line is gone at the end. Where standard error
    is no terminal, nothing is shown. `done`: what those are that are counted: "have ended".
    """

    def __init__(self, doing: str, total: int | None = None, done: str = "") -> None:
        self._doing = doing
        self._total = total
        self._said = done and f" {done}"
        self._done = 0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._shows = threading.Thread(target=self._show, daemon=True)

    def __call__(self, done: int, total: int | None = None) -> None:
        """So many are done; `total`: of how many, if that was not known before."""
        self._done = done
        self._total = total or self._total

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._shows.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._shows.ident is not None:
            self._shows.join()

    def _show(self) -> None:
        pause, shown = SILENT_SECONDS, False
        while not self._over.wait(pause):
            self._draw(f"{self._doing}{self._how_far()}")
            pause, shown = _AGAIN_SECONDS, True
        if shown:
            self._draw("")

    def _how_far(self) -> str:
        if self._done and self._total:
            return f": {self._done:,} of {self._total:,}{self._said}"
        if self._done:
            return f": {self._done:,}"
        return f" ({time.monotonic() - self._began:.0f} s)"

    def _draw(self, text: str) -> None:
        try:
            click.echo(f"\r\x1b[2K{text}", err=True, nl=False)
        except OSError:  # nobody sees it; the work goes on
            self._over.set()
