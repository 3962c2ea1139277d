"""Real processes of a test: started, killed by their ids, and none left behind.

Each carries a mark in its environment, which its descendants inherit; at the end of the
test whoever still carries the mark is killed, and the test fails.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
MARK = "BANYAN_TEST_MARK"


class Started:
    """One process; its output goes to files, so that a full pipe can't stop it."""

    def __init__(self, process: "subprocess.Popen[bytes]", stdout: Path, stderr: Path) -> None:
        self.process = process
        self._stdout, self._stderr = stdout, stderr

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained about so far."""
        return self._stderr.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(10)

    def wait(self, seconds: float = 10.0) -> int:
        """Its exit code; fails when it has not ended within `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still going after {seconds} s:\n{self.stderr[-4000:]}") from None

    def terminate(self, seconds: float = 30.0) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        return self.wait(seconds)

    def line(self, seconds: float = 30.0) -> str:
        """The first whole line that it prints; fails when it ends before that."""

        def probe() -> bool:
            return "\n" in self.stdout or self.process.poll() is not None

        eventually(probe, seconds)
        if "\n" not in self.stdout:
            raise AssertionError(f"ended with {self.process.poll()}:\n{self.stderr[-4000:]}")
        return self.stdout.split("\n", 1)[0]


class Processes:
    """Starts processes in `directory`; `end()` ends them and tells who was left over."""

    def __init__(self, directory: Path) -> None:
        self.mark = uuid.uuid4().hex
        self._directory = directory
        self._started: list[Started] = []

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Started:
        """Start a program in the test's own directory, with the checkout's package."""
        number = len(self._started)
        stdout, stderr = (self._directory / f"{number}.{name}" for name in ("stdout", "stderr"))
        with stdout.open("wb") as out, stderr.open("wb") as complaints:
            process = subprocess.Popen(
                list(arguments),
                env={**os.environ, **self.environment(), **(environment or {})},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=complaints,
                start_new_session=True,
            )
        started = Started(process, stdout, stderr)
        self._started.append(started)
        return started

    def banyan(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Started:
        """Start `banyan ARGUMENTS...` of the checkout."""
        return self.start([sys.executable, "-m", "banyan", *arguments], environment)

    def environment(self) -> dict[str, str]:
        """What makes a process of this test recognisable, and finds the checkout."""
        return {MARK: self.mark, "PYTHONPATH": str(ROOT)}

    def end(self, grace_seconds: float = 5.0) -> None:
        """End what still goes, in the reverse order; fail if a descendant is left over."""
        for started in reversed(self._started):
            if started.process.poll() is None:
                started.process.terminate()
                try:
                    started.process.wait(30)
                except subprocess.TimeoutExpired:
                    started.kill()
        try:
            eventually(lambda: not marked_processes(self.mark), grace_seconds)
        except AssertionError:
            left = marked_processes(self.mark)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"processes were left behind: {left}") from None


def marked_processes(mark: str) -> dict[int, str]:
    """Living processes with this mark in their environment: process id -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode(errors="replace").strip()
            except OSError:
                continue  # ended meanwhile, or somebody else's
    return found
