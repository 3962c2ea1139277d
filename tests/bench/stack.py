"""A stack of its own for one measurement: server, private MongoDB and, if asked, a worker."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import processes
from tests.bench.http import Client


class Stack:
    """A running stack; `provider` and `worker` ask as accounts of those roles."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, tokens: dict[str, str]) -> None:
        self.pid = process.pid
        self.url = url
        self.tokens = tokens
        self.provider = Client(url, tokens["provider"])
        self.worker = Client(url, tokens["worker"])

    def cpu_seconds(self) -> dict[str, float]:
        """What each kind of process has used so far."""
        return processes.cpu_seconds(self.pid)

    def mongo_uri(self) -> str:
        """Where its private MongoDB is: as one of the server processes was told."""
        for one in processes.tree(self.pid):
            if "banyan.server.serve" in one.command:
                words = Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0")
                found = [word for word in words if word.startswith(b"BANYAN_MONGO_URI=")]
                return found[0].decode().split("=", 1)[1]
        raise RuntimeError("no server process is there")


@contextlib.contextmanager
def stack(*options: str, **knobs: str) -> Iterator[Stack]:
    """`banyan up` with a data directory and a profile of its own, ended at the end.

    knobs: LEASE_SECONDS="20" becomes BANYAN_LEASE_SECONDS in its environment.
    """
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as directory:
        own = {"BANYAN_CONFIG": f"{directory}/config.toml"}
        own |= {f"BANYAN_{name}": value for name, value in knobs.items()}
        command = [sys.executable, "-m", "banyan", "up", "--json", "--port", "0"]
        complaints = Path(directory) / "complaints"
        with complaints.open("w") as stderr:
            process = subprocess.Popen(
                [*command, "--data", f"{directory}/data", *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | own,
                text=True,
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the stack did not come up:\n{complaints.read_text()}")
            ready = json.loads(line)
            tokens = json.loads(Path(ready["credentials"]).read_text())
            yield Stack(process, ready["url"], tokens)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
