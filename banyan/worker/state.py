"""The directory in which one worker keeps what the next worker there goes on with.

Used by the agent. In it: `lock` (held by the living agent), `worker.json` (who it is, and for
which server), the launcher's socket, and `output/` with the output of attempts that is not
delivered yet. One agent at a time, by the lock; it must never be shared between machines.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from banyan import ownership
from banyan.config import user_directory
from banyan.errors import BanyanError
from banyan.open_files import is_at
from banyan.worker.launcher import OUTPUT

_LOCK = "lock"
_IDENTITY = "worker.json"
_DRAINS = "drains"  # is there while the worker drains of its own accord


class Identity(NamedTuple):
    """A worker as its server knows it."""

    worker: str
    lease_seconds: float
    takeovers: int = 0  # by agents after the first


class StateDirectory:
    """A locked state directory; the lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Errors: `data_directory_in_use` while another agent lives there; `usage` where others
        could put something there; OSError.
        """
        ownership.claim(path)
        with contextlib.suppress(PermissionError):  # root's
            path.chmod(0o700)  # output and tokens of tasks pass through it
        self.path = path.absolute()
        self._outputs = self.path / OUTPUT
        self._identity: Identity | None = None  # as it was kept last
        self._drains = False
        self._lock = self._locked()
        self._outputs.mkdir(exist_ok=True, mode=0o700)

    def _locked(self) -> int:
        lock = ownership.open_file(self.path / _LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            message = f"another worker is at work in {self.path}"
            raise BanyanError(
                "data_directory_in_use", f"{message}; give this one a directory of its own"
            ) from None
        return lock

    def missing(self) -> list[str]:
        """The names of what this worker has put here, and somebody else has removed."""
        missing = [] if is_at(self.path / _LOCK, self._lock) else [_LOCK]
        wanted = {OUTPUT: True, _IDENTITY: self._identity, _DRAINS: self._drains}
        kept = [name for name, is_wanted in wanted.items() if is_wanted]
        return missing + [name for name in kept if not os.path.lexists(self.path / name)]

    def repair(self) -> None:
        """Makes anew what is missing.

        Errors: `data_directory_in_use` where another worker has begun here meanwhile; `usage`
        where others could put something there by now; OSError.
        """
        ownership.make(self.path)
        ownership.claim(self.path)
        if not is_at(self.path / _LOCK, self._lock):
            removed, self._lock = self._lock, self._locked()
            os.close(removed)
        self._outputs.mkdir(exist_ok=True, mode=0o700)
        if self._identity:
            self.keep_identity(self._identity)
        if self._drains:
            self.note_drain()

    def identity(self) -> Identity | None:
        """The worker that was here last; None after an orderly end."""
        try:
            kept: dict[str, Any] = json.loads(ownership.read_text(self.path / _IDENTITY))
            takeovers = int(kept.get("takeovers", 0))
            return Identity(str(kept["worker"]), float(kept["lease_seconds"]), takeovers)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_identity(self, identity: Identity) -> None:
        """Who is here now, for the next agent. Errors: OSError."""
        self._identity = identity
        ownership.replace_text(self.path / _IDENTITY, json.dumps(identity._asdict()))

    def forget_identity(self) -> None:
        """After the end of the registration; with what a full disk has left of another."""
        self._identity, self._drains = None, False
        for name in (_IDENTITY, f"{_IDENTITY}.new"):
            (self.path / name).unlink(missing_ok=True)
        (self.path / _DRAINS).unlink(missing_ok=True)

    def note_drain(self) -> None:
        """The worker takes nothing new until its own end: the next agent is not bound by that."""
        self._drains = True
        with contextlib.suppress(OSError):  # a full disk: the next agent drains on
            os.close(ownership.open_file(self.path / _DRAINS, os.O_WRONLY | os.O_CREAT))

    def forget_drain(self) -> bool:
        """Whether the agent before this one was draining of its own accord; asked once."""
        try:
            (self.path / _DRAINS).unlink()
        except OSError:
            return False
        return True

    def output_of(self, attempt: str) -> Path:
        """Where the output of an attempt lies, as long as it is not delivered."""
        return self._outputs / attempt

    def forget_outputs(self, but: set[str]) -> None:
        """Removes the output of all other attempts: nobody will deliver it."""
        for left in self._outputs.iterdir():
            if left.name not in but:
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets another agent in."""
        os.close(self._lock)


def open_state(path: Path | None, url: str) -> StateDirectory:
    """The given directory, or the first of the user's that no other worker is using.

    Errors: as of StateDirectory; `usage` also where others could exchange the directory, or it
    can't be used at all.
    """
    for candidate in _places(url) if path is None else [path]:
        try:
            ownership.make(candidate)
            return StateDirectory(candidate)
        except OSError as problem:
            place = problem.filename or candidate
            message = f"{place} cannot be used: {problem.strerror}; name another place with "
            raise BanyanError("usage", f"{message}--state-directory DIR") from None
        except BanyanError as error:
            if path is not None or error.word != "data_directory_in_use":
                raise
    raise AssertionError("the places never end")


def _places(url: str) -> Iterator[Path]:
    home = user_directory("XDG_STATE_HOME", ".local/state", "--state-directory DIR")
    server = re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(url).netloc)
    number = 0
    while True:
        yield home / "workers" / f"{server}-{number}"
        number += 1
