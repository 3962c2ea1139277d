"""A stack of its own for one benchmark: server, private MongoDB and, if asked, a worker."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import requests

MINIMAL = {"Prefer": "return=minimal"}


class Stack:
    """A running stack; `provider` and `worker` are sessions of those roles."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, str]) -> None:
        self.process = process
        self.url = ready["url"]
        tokens = json.loads(Path(ready["credentials"]).read_text())
        self.provider = self._session(tokens["provider"])
        self.worker = self._session(tokens["worker"])

    def _session(self, token: str) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {token}"
        return session

    def post(self, path: str, body: Any, role: str = "provider") -> Any:
        """A POST without echoes; its JSON."""
        session: requests.Session = getattr(self, role)
        answer = session.post(f"{self.url}/{path}", json=body, headers=MINIMAL)
        answer.raise_for_status()
        return answer.json()

    def patch(self, path: str, body: Any, role: str = "provider") -> Any:
        """A PATCH without echoes; its JSON."""
        session: requests.Session = getattr(self, role)
        answer = session.patch(f"{self.url}/{path}", json=body, headers=MINIMAL)
        answer.raise_for_status()
        return answer.json()

    def get(self, path: str, **parameters: str) -> Any:
        """A GET; its JSON."""
        answer = self.provider.get(f"{self.url}/{path}", params=parameters, headers=MINIMAL)
        answer.raise_for_status()
        return answer.json()

    def cpu_seconds(self) -> dict[str, float]:
        """What each kind of process has used so far."""
        used = {"server": 0.0, "mongod": 0.0, "worker": 0.0}
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                times = process.cpu_times()
                kind = next((k for k, mark in _MARKS.items() if mark in words), None)
                if kind:
                    used[kind] += times.user + times.system
        return used


_MARKS = {"mongod": "mongod", "worker": "banyan.worker.launcher", "server": "banyan.server.serve"}


@contextlib.contextmanager
def stack(*options: str) -> Iterator[Stack]:
    """`banyan up` with a data directory and a profile of its own, ended at the end."""
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as directory:
        environment = {**os.environ, "BANYAN_CONFIG": f"{directory}/config.toml"}
        command = [sys.executable, "-m", "banyan", "up", "--json", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--data", f"{directory}/data", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield Stack(process, json.loads(process.stdout.readline()))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
