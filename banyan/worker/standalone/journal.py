"""What has ended in a standalone run, one JSON line each, so that the next one can skip it.

A line that an interruption has cut is no line. It must never say of a task that it succeeded
before its output is in its files.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from banyan.errors import BanyanError
from banyan.worker.standalone.outputs import open_own

FILE = "journal.jsonl"


class Journal:
    """The file in the directory of a run."""

    def __init__(self, directory: Path) -> None:
        """Errors: BanyanError `usage`, where it can't be written."""
        self._path = directory / FILE
        try:
            self._file = open_own(self._path)
        except OSError as error:
            message = f"{self._path} cannot be used: {error.strerror}"
            raise BanyanError("usage", message) from None

    def succeeded(self, tasks: Iterable[Mapping[str, Any]]) -> list[str]:
        """Of these tasks, those that have succeeded already, as they are now.

        Groups are none: they end anew, when all that they wait for has.
        """
        done: dict[str, bool] = {}
        for line in self._path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                done[entry["key"]] = entry["outcome"] == "success"
            except (ValueError, KeyError, TypeError):
                continue
        return [str(task["_id"]) for task in tasks if task["command"] and done.get(task["key"])]

    def add(self, task: Mapping[str, Any], time: str) -> None:
        """How a task has ended, at `time`. Errors: OSError."""
        entry = {"name": task["name"], "key": task["key"], "outcome": task["outcome"]}
        more = {"reason": task["reason"], "attempts": task.get("attempt_count", 0), "time": time}
        if task.get("progress"):
            more["progress"] = task["progress"]
        # On a line of its own, also where the one before was cut by a full disk.
        self._file.write(b"\n" + json.dumps({**entry, **more}).encode())

    def close(self) -> None:
        """No more is written."""
        self._file.close()
