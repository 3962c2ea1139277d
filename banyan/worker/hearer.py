"""Who hears of the attempts that a worker holds: the reports to a server, or a standalone run.

`Holding` tells, in its own thread. A hearer must never wait for anything in these calls.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from banyan.worker.output import Reader


class Hearer(Protocol):
    """What becomes of an attempt, in this order."""

    def follow(self, attempt: str, task: str, token: str, reader: Reader) -> None:
        """It is held now; `reader` is where its output will be."""

    def output(self, attempt: str) -> None:
        """There is more output."""

    def sample(self, attempt: str, sample: Mapping[str, Any]) -> None:
        """What it uses at the moment; from another thread where it has GPUs."""

    def ended(self, attempt: str, end: Mapping[str, Any], inline: str | None, size: int) -> None:
        """It has ended; `end` as `endings.end_of` says it, the others as `Reader.complete`."""

    def drop(self, attempt: str) -> None:
        """Nothing more is heard of it."""
