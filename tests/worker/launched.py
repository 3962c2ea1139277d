"""A real launcher and a test in the place of its agent."""

import base64
import os
import select
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from banyan.worker import launching, wire
from banyan.worker.launcher import OUTPUT
from banyan.worker.spool import STREAM_NAMES, chunks
from banyan.worker.timers import now

Message = dict[str, Any]

PATH = "/usr/local/bin:/usr/bin:/bin"


class Launched:
    """One launcher over its socket; every message that came is kept in `heard`."""

    def __init__(self, state_directory: Path) -> None:
        self.state_directory = state_directory
        self.line, self.process = launching.start(state_directory)
        self.heard: list[Message] = []
        try:
            self.hello = self.until("hello")
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.line.close()
            raise
        self._mark = uuid.uuid4().hex[:12]  # other launchers may be at work on the machine
        self._number = 0

    def start(self, argv: list[str], **more: Any) -> str:
        """Starts a command; its attempt. Other members of the message may be given."""
        self._number += 1
        attempt = more.pop("attempt", f"{self._mark}-{self._number}")
        env = {"PATH": PATH, "BANYAN_ATTEMPT": attempt, **more.pop("env", {})}
        message = {
            "do": "start",
            "attempt": attempt,
            "argv": argv,
            "env": env,
            "cwd": "/",
            "timeout_seconds": None,
            "grace_seconds": 10,
            "begin_seconds": 60,
            "before": now() + 1000,
            "log_bytes_max": 1 << 20,
            "keep": {"of": attempt},
        }
        self.say({**message, **more})
        return str(attempt)

    def shell(self, script: str, **more: Any) -> str:
        """Starts a shell script."""
        return self.start(["/bin/sh", "-c", script], **more)

    def stop(self, attempt: str, grace_seconds: float = 10, why: str = "cancelled") -> None:
        self.say({"do": "stop", "attempt": attempt, "why": why, "grace_seconds": grace_seconds})

    def say(self, message: Message) -> None:
        self.line.say(message)
        self.line.flush()
        while self.line.unsent:
            select.select([], [self.line], [], 5)
            self.line.flush()

    def until(
        self,
        kind: str,
        attempt: str | None = None,
        seconds: float = 20,
        having: Callable[[Message], bool] = lambda message: True,
    ) -> Message:
        """The first message of this kind (of this attempt), now or to come."""
        deadline = time.monotonic() + seconds
        looked_at = 0
        while True:
            for message in self.heard[looked_at:]:
                of_it = attempt in (None, message.get("attempt"))
                if message["is"] == kind and of_it and having(message):
                    return message
            looked_at = len(self.heard)
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.line], [], [], left)[0]
            assert ready, f"no {kind} of {attempt} within {seconds} s; heard {self._tail()}"
            self.heard += self.line.hear()

    def ended(self, attempt: str, seconds: float = 20) -> Message:
        return self.until("ended", attempt, seconds)

    def says(self, attempt: str, text: bytes, seconds: float = 20) -> None:
        """Waits until the attempt's output in the spool file holds this."""
        self.until("output", attempt, seconds, having=lambda _: text in self.output(attempt))

    def frames(self, attempt: str) -> list[tuple[str, bytes]]:
        """(stream, bytes) of what an attempt has said, in order."""
        spooled = self.spool(attempt)
        data = spooled.read_bytes() if spooled.exists() else b""
        for message in self.heard:
            if message["is"] == "ended" and message["attempt"] == attempt and message["inline"]:
                data = base64.b64decode(message["inline"])
        return [(STREAM_NAMES[each.stream], each.data) for each in chunks(data)]

    def output(self, attempt: str) -> bytes:
        return b"".join(data for _, data in self.frames(attempt))

    def spool(self, attempt: str) -> Path:
        return self.state_directory / OUTPUT / attempt

    def run(self, script: str, **more: Any) -> tuple[Message, bytes]:
        """A shell script to its end: how it ended, and what it said."""
        attempt = self.shell(script, **more)
        return self.ended(attempt), self.output(attempt)

    def hang_up(self) -> None:
        """What the launcher sees when its agent is killed."""
        self.line.close()

    def call_again(self) -> Message:
        """What the next agent does; the launcher's greeting."""
        line = launching.find(self.state_directory)
        assert line is not None, "the launcher has gone"
        self.line, self.heard = line, []
        return self.until("hello")

    def end(self) -> None:
        """Ends the launcher, and all that it holds."""
        try:
            self.say({"do": "goodbye"})
            for attempt in self._known():
                self.stop(attempt, grace_seconds=0)
            self.process.wait(20)
        except (wire.Gone, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.line.close()

    def _tail(self) -> str:
        return "\n".join(str(message)[:300] for message in self.heard[-10:])

    def _known(self) -> list[str]:
        return [f"{self._mark}-{number}" for number in range(1, self._number + 1)]


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def carrying(name: str, value: str) -> list[int]:
    """The living processes with this variable in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [pid for pid in found if alive(pid)]
