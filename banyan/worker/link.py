"""The agent's end of the conversation with its launcher, and whether the launcher still works.

Owned by the agent's loop. It must never go on with a launcher that does not answer: the tasks
of a frozen one would outlive their lease with nobody to end them.
"""

import contextlib
import logging
import os
import select
import subprocess
from pathlib import Path

from banyan.worker import launching, wire
from banyan.worker.launcher import SOCKET
from banyan.worker.timers import now

_HELLO_SECONDS = 10.0
_END_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Link:
    """One launcher after another: there is always one, but for a moment."""

    def __init__(self, state_directory: Path) -> None:
        self._directory = state_directory
        self._line: wire.Line | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_at: float | None = None  # since when an answer is owed
        self._trust: wire.Message | None = None
        self.pid: int | None = None

    def open(self) -> wire.Message:
        """Finds or starts a launcher; its greeting."""
        self._line = launching.find(self._directory)
        hello = self._greeting()
        if hello is None:
            launching.kill(self._directory)
            self._line, self._process = launching.start(self._directory)
            hello = self._greeting()
        if hello is None:
            stderr = launching.stderr(self._directory)
            raise RuntimeError(f"the launcher did not start: {stderr}")
        self.pid = hello["pid"]
        if self._trust:
            self.say(self._trust)
        return hello

    def fileno(self) -> int:
        """For a selector."""
        return self._line.fileno() if self._line else -1

    @property
    def unsent(self) -> bool:
        """True where the launcher takes no more at the moment."""
        return bool(self._line and self._line.unsent)

    def say(self, message: wire.Message) -> None:
        """Keeps a message for the next `flush`."""
        if self._line:
            self._line.say(message)

    def trust(self, until: float, lease_end: float) -> None:
        """Lets tasks go on until then (seconds since boot); asks the launcher to confirm it."""
        self._trust = {"do": "trust", "until": until, "lease_end": lease_end}
        self._asked_at = self._asked_at or now()
        self.say(self._trust)

    def check(self, patience_seconds: float) -> float | None:
        """When to look again, in seconds, while an answer is owed; None: none is.

        A launcher that has owed one for longer is ended: its tasks must end before their lease
        does. Errors: wire.Gone.
        """
        if not self._asked_at:
            return None
        left_seconds = patience_seconds - (now() - self._asked_at)
        if left_seconds < 0:
            _log.error("the launcher does not answer")
            launching.kill(self._directory)
            self.close()
            raise wire.Gone
        return left_seconds

    def flush(self) -> None:
        """Sends what can be sent. Errors: wire.Gone."""
        if self._line:
            self._line.flush()

    def hear(self) -> list[wire.Message]:
        """What the launcher has said. Errors: wire.Gone."""
        messages = self._line.hear() if self._line else []
        if messages:
            self._asked_at = None
        return messages

    def missing(self) -> list[str]:
        """The names of what leads to the launcher, and somebody has removed."""
        names = [SOCKET, launching.PID] if self._line else []
        return [name for name in names if not os.path.lexists(self._directory / name)]

    def repair(self) -> None:
        """Makes it anew. Errors: OSError."""
        missing = self.missing()
        if SOCKET in missing:
            self.say({"do": "repair"})
        if launching.PID in missing and self.pid is not None:
            launching.note(self._directory, self.pid)

    def goodbye(self) -> None:
        """Lets the launcher end when nothing runs any more, and waits a little for that."""
        self.say({"do": "goodbye"})
        with contextlib.suppress(wire.Gone):
            self.flush()
            while self._line and select.select([self._line], [], [], _END_SECONDS)[0]:
                self._line.hear()
                self.flush()
        self.close()
        if launching.find(self._directory) is None:
            launching.clear(self._directory)

    def close(self) -> None:
        """Hangs up."""
        if self._line:
            self._line.close()
        self._line = None
        self._asked_at = None
        if self._process:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                _log.warning("the launcher goes on: something still runs")
        self._process = None

    def _greeting(self) -> wire.Message | None:
        """The first message of a new conversation; None from a dead or frozen launcher."""
        with contextlib.suppress(wire.Gone):
            while self._line and select.select([self._line], [], [], _HELLO_SECONDS)[0]:
                for message in self._line.hear():
                    return message
        if self._line:
            self._line.close()
        self._line = None
        return None
