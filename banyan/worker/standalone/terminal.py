"""What a standalone run shows: a line for each task that ends, and on a terminal how far it is.

Called by the run's loop. Names are other people's text: none reaches the terminal as it is.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

_REDRAW_SECONDS = 0.1
_ENDED = ("success", "failure", "timeout", "oom", "lost", "cancelled")


class Terminal:
    """Standard output."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._live = sys.stdout.isatty()
        self._drawn_at = 0.0
        self._drawn = False

    def say(self, text: str) -> None:
        """One line that stays."""
        self._clear()
        harmless = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        sys.stdout.write(f"{harmless}\n")
        sys.stdout.flush()

    def ended(self, task: Mapping[str, Any]) -> None:
        """A task is over; on a terminal only what did not go well is worth a line."""
        outcome = task["outcome"] or task["state"]
        if self._live and outcome == "success":
            return
        reason = str(task.get("reason") or "")
        said = reason if reason.startswith(outcome) else f"{outcome}: {reason}".rstrip(": ")
        self.say(f"{task['name']}: {said}")

    def draw(self, counts: Callable[[], Counter[str]]) -> None:
        """How far it is now, over what was drawn before; not more often than one can see."""
        if not self._live or time.monotonic() - self._drawn_at < _REDRAW_SECONDS:
            return
        self._clear()
        sys.stdout.write(self.summary(counts()))
        sys.stdout.flush()
        self._drawn, self._drawn_at = True, time.monotonic()

    def summary(self, counts: Counter[str]) -> str:
        """On one line: "12 of 20 ended: 11 success, 1 failure, 8 running"."""
        ended = sum(counts[name] for name in _ENDED)
        parts = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        return f"{ended} of {self._total} ended: {parts}"

    def _clear(self) -> None:
        if self._drawn:
            sys.stdout.write("\r\x1b[2K")
        self._drawn = False
