"""What clients did and what they were told: each line on the disk before the next request.

Written by the load of a chaos run, read by its judge. An operation is `invoke`d, and then is
`ok`, `refused`, or `unknown`: sent, and nobody knows what became of it.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class History:
    """Appends to a file; may be used from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def add(self, operation: str, outcome: str, **more: Any) -> None:
        """One line. outcome: invoke, ok, refused, unknown."""
        line = {"time": time.time(), "operation": operation, "outcome": outcome, **more}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")

    def lines(self) -> Iterator[Line]:
        """All lines so far."""
        for text in self.path.read_text().splitlines():
            yield json.loads(text)

    def close(self) -> None:
        self._file.close()
