"""What the supervisor keeps alive: each a process that is started anew when it dies.

Called by `banyan.server.supervisor` alone. A program that dies at once, again and again,
is given up with a clear error rather than started for ever.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import banyan
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.server.processes import Child

logger = logging.getLogger(__name__)

_QUICK_SECONDS = 10.0  # a process that lived for less has died quickly
_QUICK_DEATHS_MAX = 5
_BACKOFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0)


class Service:
    """One process, over all its lives.

    start: starts it and returns the child; called in the main thread only.
    """

    def __init__(self, name: str, start: Callable[[], Child]) -> None:
        self.name = name
        self.child: Child | None = None
        self._start = start
        self._began = 0.0
        self._due = 0.0
        self._quick_deaths = 0
        self._has_worked = False

    def begin(self) -> None:
        """Start it for the first time."""
        self._began = time.monotonic()
        self.child = self._start()

    def tend(self) -> None:
        """Start it again if it has died, after a pause that grows. Errors: `unavailable`."""
        now = time.monotonic()
        code = self.child.ended() if self.child else None
        if self.child and code is not None:
            self._mourn(self.child, code, now)
        if self.child is None and now >= self._due:
            self.begin()

    @property
    def runs(self) -> bool:
        """True while its process lives."""
        return self.child is not None and self.child.ended() is None

    def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL after so many seconds."""
        if self.child:
            self.child.stop(seconds)

    def _mourn(self, child: Child, code: int, now: float) -> None:
        quick = now - self._began < _QUICK_SECONDS
        self._has_worked = self._has_worked or not quick
        if code == EXIT_USAGE and not self._has_worked:
            told = "cannot work as it was told to; the line above says why"
            raise BanyanError("usage", f"the {self.name} {told}")
        self._quick_deaths = self._quick_deaths + 1 if quick else 1
        if self._quick_deaths >= _QUICK_DEATHS_MAX:
            raise BanyanError(
                "unavailable",
                f"the {self.name} has ended {_QUICK_DEATHS_MAX} times right after its start, "
                f"at last it {_ended(code)}; the lines above say why",
            )
        self._due = now + _BACKOFF_SECONDS[self._quick_deaths - 1]
        self.child = None
        told = f"{_ended(code)}; it is started again"
        logger.warning("the %s (process %d) %s", self.name, child.pid, told)


def _ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with {code}"


def python(module: str, *arguments: str) -> list[str]:
    """The command for one of our own modules; to be started with `environment`.

    It imports nothing from the current directory, where others may be allowed to write.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**changes: str | None) -> Mapping[str, str]:
    """This process's environment with changes; None takes a name out.

    An empty entry of PYTHONPATH, as `$PYTHONPATH:/x` often leaves one, means the current directory:
    it is taken out. That directory is searched only where Banyan itself was found in it.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [os.path.abspath(each) for each in given if each]
    root = str(Path(banyan.__file__).parents[1])
    if root == os.getcwd() and root not in paths:
        paths.insert(0, root)
    merged = {**os.environ, "PYTHONPATH": os.pathsep.join(paths) or None, **changes}
    return {name: value for name, value in merged.items() if value is not None}
