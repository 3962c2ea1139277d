"""A whole stack (`banyan up`) and the command line beside it, as at somebody's terminal."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness import Processes, Started
from tests.harness.processes import ROOT
from tests.harness.server import as_environment

Done = subprocess.CompletedProcess[bytes]


class Stack:
    """`banyan up` on a data directory of its own, with a profile of its own."""

    def __init__(
        self, processes: Processes, directory: Path, *options: str, **knobs: object
    ) -> None:
        self.data = directory / "data"
        self.processes = processes
        self.environment = {
            **processes.environment(),
            "BANYAN_CONFIG": str(directory / "config.toml"),
            **as_environment(knobs),
        }
        self.options = ("--json", "--port", "0", "--data", str(self.data), *options)
        self.started = self.start()

    def start(self) -> Started:
        """Starts it, the first time or again; returns once it is ready."""
        self.launch()
        ready = json.loads(self.started.line(60))
        self.url: str = ready["url"]
        self.credentials = Path(ready["credentials"])
        return self.started

    def launch(self) -> None:
        """Starts it, and waits for nothing."""
        self.started = self.processes.banyan("up", *self.options, environment=self.environment)

    def call(
        self,
        *arguments: str,
        code: int = 0,
        environment: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Done:
        """`banyan ARGUMENTS...`; fails when it ends with another code than `code`."""
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        done: Done = subprocess.run(
            [sys.executable, "-m", "banyan", *arguments],
            env={**os.environ, **self.environment, **(environment or {})},
            timeout=60,
            check=False,
            **given,
        )
        told = (done.stdout, done.stderr)
        assert done.returncode == code, f"banyan {arguments} ended with {done.returncode}: {told}"
        return done

    def text(self, *arguments: str, **more: Any) -> str:
        """What it prints, without the newline at the end."""
        output: bytes = self.call(*arguments, **more).stdout
        return output.decode().removesuffix("\n")

    def json(self, *arguments: str, **more: Any) -> Any:
        """What it prints, read as JSON."""
        return json.loads(self.text(*arguments, **more))

    def on_a_terminal(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a terminal of 150 columns gets to see."""
        ours, theirs = pty.openpty()
        try:
            surroundings = {"TERM": "xterm-256color", "COLUMNS": "150", **environment}
            self.call(*arguments, code=code, stdout=theirs, stderr=theirs, environment=surroundings)
        finally:
            os.close(theirs)
        return read_all(ours)

    def begin(self, *arguments: str, **more: Any) -> "subprocess.Popen[bytes]":
        """`banyan ARGUMENTS...`, still going."""
        return subprocess.Popen(
            [sys.executable, "-m", "banyan", *arguments],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            **more,
        )


def read_all(terminal: int) -> str:
    """What was written to our side of a terminal that nobody writes to any more; closes it."""
    pieces = []
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as file:
        # Linux says OSError when the last writer has gone.
        while piece := file.read(65536):
            pieces.append(piece)
    return b"".join(pieces).decode()


def interrupt(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Ctrl-C; the exit code and what it said."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    return process.returncode, said.decode()
