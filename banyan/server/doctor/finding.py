"""One thing that is wrong: what, with which task, and what to do about it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """What a check found.

    check:   the name of the check.
    subject: the task, or what else it is about, as text.
    message: what is wrong.
    advice:  what to do.
    remedy:  which repair mends it; None where none does.
    target:  what the remedy is for, by its id: an attempt, or a task that is to be settled.
    """

    check: str
    subject: str
    message: str
    advice: str
    remedy: str | None = None
    target: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `banyan doctor --json` prints it."""
        return asdict(self)
