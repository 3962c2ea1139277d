"""Real shells and commands at a real terminal, as a person has them."""

import contextlib
import os
import pty
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.harness import eventually

# Without anything of the machine's own.
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "--no-rcs", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}


class Terminal:
    """A program, in `home`, that reads what we type and whose output we see."""

    def __init__(self, words: Sequence[str], home: Path, **more: str) -> None:
        self.shown = ""
        self._pid, self._line = pty.fork()
        if self._pid == 0:
            environment = {
                **os.environ, "HOME": str(home), "ZDOTDIR": str(home), "TERM": "dumb",
                "PATH": f"{home}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(home), **more,
            }  # fmt: skip
            os.chdir(home)
            os.execvpe(words[0], words, environment)  # noqa: S606 - what is tried here
        os.set_blocking(self._line, False)

    def type(self, text: str) -> None:
        os.write(self._line, text.encode())

    def shows(self, text: str) -> bool:
        with contextlib.suppress(OSError):
            self.shown += os.read(self._line, 65536).decode(errors="replace")
        return text in self.shown

    def rest(self) -> str:
        """All that it has shown when it has ended."""
        eventually(self._has_ended, 60)
        return self.shown

    def _has_ended(self) -> bool:
        """On Linux reading fails then."""
        try:
            piece = os.read(self._line, 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.shown += piece.decode(errors="replace")
        return not piece

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._line)
