"""How far tasks are, counted by the server: for `banyan progress`, for programs and notebooks.

Called by `Client.progress`, `Executor.progress` and the command line. It asks one held request at
a time, however many tasks there are, and must never keep a program from ending.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from banyan.client.holding import HOLD_SECONDS, Held
from banyan.errors import BanyanError

if TYPE_CHECKING:
    from banyan.client.api import Client

Counts = dict[str, int]

# How the words of states and outcomes are summed up, in the order in which they are drawn.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "succeeded": ("success",),
    "failed": ("failure", "timeout", "oom", "lost"),
    "cancelled": ("cancelled",),
    "running": ("running", "pending_cancellation"),
    "waiting": ("available",),
    "held": ("inactive",),
}
_ENDED = ("succeeded", "failed", "cancelled")
_COLOURS = {
    "succeeded": "#2e7d32", "failed": "#c62828", "cancelled": "#f9a825",
    "running": "#0277bd", "waiting": "#9e9e9e", "held": "#e0e0e0",
}  # fmt: skip
_LINE_SECONDS = 5.0  # where nothing can be drawn there is a line so often


def changes(
    client: "Client", where: Mapping[str, Any], seconds: float = HOLD_SECONDS
) -> Iterator[Counts | None]:
    """The tasks counted by GROUPS, each time that something has changed.

    seconds: after so long (at most 30) without a change there is a None.
    """
    held = Held(client.transport, "/tasks/statistics")
    while True:
        answer = held.next({"where": where, "by": "state,outcome"}, seconds)
        yield None if answer is None else grouped(answer.body)


def grouped(body: Mapping[str, Any]) -> Counts:
    """What `/tasks/statistics` counts, by GROUPS."""
    by = {**body.get("by_state", {}), **body.get("by_outcome", {})}
    return {name: sum(by.get(word, 0) for word in words) for name, words in GROUPS.items()}


def done(counts: Counts) -> bool:
    """Whether all of them have ended."""
    return sum(counts.values()) == sum(counts[name] for name in _ENDED)


def summary(counts: Counts) -> str:
    """On one line: "12 of 20 ended: 11 succeeded, 1 failed, 8 running"."""
    ended = sum(counts[name] for name in _ENDED)
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{ended:,} of {sum(counts.values()):,} ended: {parts}"


class Progress:
    """Some tasks and how far they are; the last line of a notebook's cell draws it.

    `show()` keeps the drawing current while the notebook goes on; `wait()` waits for the end.
    """

    def __init__(
        self,
        client: "Client",
        where: Mapping[str, Any],
        more: Callable[[], bool] = lambda: False,
    ) -> None:
        """where: which tasks; more: whether there may still come some."""
        self._client = client.clone()
        self._where = where
        self._more = more
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def counts(self) -> Counts:
        """How many there are, by the names of GROUPS."""
        with self._client.clone() as client:
            return grouped(client.statistics(self._where, ("state", "outcome")))

    def show(self) -> Self:
        """Draw it, and redraw it in the background, until all have ended or `stop()`."""
        if self._thread is None or not self._thread.is_alive():
            surface = _surface()
            surface.draw(self.counts())
            # A daemon: a program that has nothing more to do does not wait for the picture.
            self._thread = threading.Thread(
                target=self._redraw, args=[surface], name="banyan-progress", daemon=True
            )
            self._thread.start()
        return self

    def stop(self) -> None:
        """Redraw it no more."""
        self._stopping.set()

    def wait(self, timeout_seconds: float | None = None) -> Counts:
        """Draw it until all have ended; how they have. Errors: TimeoutError."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        surface = _surface()
        with self._client.clone() as client:
            for counts in changes(client, self._where, _patience(deadline)):
                if counts is not None:
                    surface.draw(counts)
                    if done(counts):
                        return counts
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"not all of them have ended in {timeout_seconds} s")
        raise AssertionError  # there is no last change

    def _redraw(self, surface: "_Surface") -> None:
        # Where the server is away for good, or refuses, the picture stays as it was.
        with suppress(BanyanError), self._client.clone() as client:
            for counts in changes(client, self._where):
                if self._stopping.is_set():
                    return
                if counts is not None:
                    surface.draw(counts)
                if counts is not None and done(counts) and not self._more():
                    return

    def __str__(self) -> str:
        return summary(self.counts())

    def _repr_html_(self) -> str:
        return html(self.counts())


def _patience(deadline: float | None) -> float:
    return HOLD_SECONDS if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))


def html(counts: Counts) -> str:
    """One bar of all groups, and the numbers below it."""
    total = sum(counts.values()) or 1
    parts = "".join(
        f'<span style="display:inline-block;height:1em;background:{_COLOURS[name]};'
        f'width:{100 * count / total:.4g}%" title="{count} {name}"></span>'
        for name, count in counts.items()
        if count
    )
    return (
        f'<div><div style="width:100%;max-width:40em;background:#eee;font-size:0.9em;'
        f'line-height:0;white-space:nowrap">{parts}</div><div>{summary(counts)}</div></div>'
    )


class _Surface:
    """Where progress is drawn: by default a line now and then, on standard output."""

    def __init__(self) -> None:
        self._next = 0.0

    def draw(self, counts: Counts) -> None:
        """Show how it is now."""
        if done(counts) or time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_SECONDS
            sys.stdout.write(summary(counts) + "\n")
            sys.stdout.flush()


class _Notebook(_Surface):
    """A display of a notebook, drawn over."""

    def __init__(self) -> None:
        super().__init__()
        self._display = import_module("IPython.display")
        self._handle: Any = None

    def draw(self, counts: Counts) -> None:
        """Show how it is now, in the place where it was."""
        drawn = self._display.HTML(html(counts))
        if self._handle is None:
            self._handle = self._display.display(drawn, display_id=True)
        else:
            self._handle.update(drawn)


def _surface() -> _Surface:
    """A notebook's display where this is a notebook: IPython is there only then."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return _Notebook() if hasattr(shell, "kernel") else _Surface()
