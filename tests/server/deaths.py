"""Servers that are killed between any two of their commands, each to answer one request."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.harness import Processes

Request = dict[str, Any]


class Deaths:
    """Server processes that are killed, each one command later than the one before."""

    def __init__(self, processes: Processes, database: str, directory: Path) -> None:
        self._processes = processes
        self._database = database
        self._file = directory / "requests"

    def of(self, requests: list[Request]) -> int:
        """Send the requests to servers that are killed; how many were, until one lived."""
        self._file.write_text("\n".join(map(json.dumps, requests)))
        arguments = [sys.executable, "-m", "tests.harness.dying", str(self._file)]
        dying = self._processes.start(arguments, {"BANYAN_MONGO_URI": self._database})
        assert dying.wait(90) == 0, dying.stderr
        statuses = [json.loads(line)["status"] for line in dying.stdout.splitlines()]
        assert statuses[:-1] == [None] * (len(statuses) - 1)
        assert statuses[-1] in (200, 201, 204), "more commands than graphs"
        return len(statuses) - 1
