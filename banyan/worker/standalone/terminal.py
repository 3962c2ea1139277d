"""What a standalone run shows: a line for each task that ends, and how far it and its tasks are.

Called by the run's loop. Names are other people's text: none reaches the terminal as it is.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from banyan.errors import BanyanError
from banyan.printable import harmless

_REDRAW_SECONDS = 0.1
_PROGRESS_SECONDS = 1.0  # where lines stay, from one of a task to the next
_ENDED = ("success", "failure", "timeout", "oom", "lost", "cancelled")


class Terminal:
    """Standard output."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._live = sys.stdout.isatty()
        self._drawn_at = 0.0
        self._drawn = False
        self._unheard = False
        self._told_at: dict[str, float] = {}  # of tasks that run
        self._told = ""  # by a task, how far it is; drawn after how far all is

    def say(self, text: str) -> None:
        """One line that stays."""
        self._clear()
        self._write(f"{harmless(text)}\n")

    def progress(self, name: str, value: Mapping[str, Any] | None) -> None:
        """How far a task is, as it has said itself."""
        if not value:
            return
        told = f"{name}: {_in_words(value)}"
        if self._live:
            self._told = told
        elif time.monotonic() - self._told_at.get(name, -_PROGRESS_SECONDS) >= _PROGRESS_SECONDS:
            self._told_at[name] = time.monotonic()
            self.say(told)

    def ended(self, task: Mapping[str, Any]) -> None:
        """A task is over; on a terminal only what did not go well is worth a line."""
        self._told_at.pop(task["name"], None)
        self._told = "" if self._told.startswith(f"{task['name']}: ") else self._told
        outcome = task["outcome"] or task["state"]
        if self._live and outcome == "success":
            return
        reason = str(task.get("reason") or "")
        said = reason if reason.startswith(outcome) else f"{outcome}: {reason}".rstrip(": ")
        far = f" ({_in_words(task['progress'])})" if task.get("progress") else ""
        self.say(f"{task['name']}: {said}{far}")

    def draw(self, counts: Callable[[], Counter[str]]) -> None:
        """How far it is now, over what was drawn before; not more often than one can see."""
        if not self._live or time.monotonic() - self._drawn_at < _REDRAW_SECONDS:
            return
        self._clear()
        self._write(harmless("; ".join(filter(None, [self.summary(counts()), self._told]))))
        self._drawn, self._drawn_at = True, time.monotonic()

    def summary(self, counts: Counter[str]) -> str:
        """On one line: "12 of 20 ended: 11 success, 1 failure, 8 running"."""
        ended = sum(counts[name] for name in _ENDED)
        parts = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        return f"{ended} of {self._total} ended: {parts}"

    def _clear(self) -> None:
        if self._drawn:
            self._write("\r\x1b[2K")
        self._drawn = False

    def _write(self, text: str) -> None:
        """What cannot be shown stops no task; the command says so at its end."""
        if self._unheard:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, BanyanError):
            self._unheard = True


def _in_words(progress: Mapping[str, Any]) -> str:
    """As a task says it: 40/100 epoch 4."""
    of = f"/{progress['total']}" if "total" in progress else ""
    return f"{progress['done']}{of} {progress.get('message', '')}".rstrip()
