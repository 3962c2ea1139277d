"""Somebody else on the port of a server that is away: hears nothing, and nothing of it is run.

The port is anybody's then. The command line, a program, and the worker of `banyan up` and its
tasks go by the unix socket in the data directory, and by nothing else.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from banyan import profiles
from banyan.errors import EXIT_UNAVAILABLE
from banyan.server import near
from tests.e2e.stack import Stack
from tests.harness import Processes, Server, eventually


@pytest.fixture
def stack(processes: Processes, tmp_path: Path) -> Stack:
    return Stack(processes, tmp_path, "--cores", "2")


class Impostor:
    """Answers each request on a port as a server would that has one task to give out."""

    def __init__(self, address: tuple[str, int], command: list[str]) -> None:
        self.heard: list[str] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode(errors="replace")
                heard.append(f"{self.command} {self.path}\n{self.headers}{body}")
                answer = json.dumps(_forged(self.path, command)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, *arguments: Any) -> None:
                """Says nothing."""

        class Port(ThreadingHTTPServer):
            allow_reuse_address = True

        self.server = Port(address, Handler)


def _forged(path: str, command: list[str]) -> Any:
    if "claim" not in path:
        return {"_id": "6" * 24, "lease_seconds": 60, "_items": [], "_status": "OK"}
    task = {
        "_id": "5" * 24, "attempt_id": "4" * 24, "token": "t", "attempt_count": 1,
        "command": command, "granted_resources": {"cores": 1, "memory_bytes": 1, "gpus": []},
        "env": {"X": {"secret": "prod_db"}},
    }  # fmt: skip
    return {"_items": [task], "_status": "OK"}


@contextmanager
def impostor(url: str, command: list[str]) -> Iterator[list[str]]:
    """Somebody else at the address of a server that is away; what they get to hear."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 0))
    made = eventually(lambda: Impostor(address, command), 10)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made.heard
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


def test_whoever_takes_the_port_of_a_server_that_is_away_hears_nothing_and_runs_nothing(
    stack: Stack, processes: Processes, tmp_path: Path
) -> None:
    forged, told = tmp_path / "forged", tmp_path / "told"
    tells = f"{sys.executable} -m banyan progress 1; echo $? > {tmp_path / 'ended'}"
    inside = f"until test -e {told}; do sleep 0.1; done; {tells}"
    task = stack.text("submit", "-q", "--queue", "other", "--", "sh", "-c", inside)
    # The worker of `banyan up`, but for its parent: it goes on while the server is away.
    worker = processes.banyan(
        *("worker", "--url", stack.url, "--socket", str(stack.data / near.NAME)),
        *("--token-file", str(stack.data / "worker.token"), "--queue", "other"),
        *("--state-directory", str(tmp_path / "state"), "--run-as", str(os.geteuid())),
    )
    eventually(lambda: len(stack.json("worker", "list", "--json")) == 2)
    eventually(lambda: stack.json("show", task, "--json")["state"] == "running")
    stack.started.terminate()
    with impostor(stack.url, ["touch", str(forged)]) as heard:
        away = stack.call("ls", code=EXIT_UNAVAILABLE).stderr.decode()
        assert f"has ended; start it with 'banyan up --data {stack.data}'" in away
        python = "from banyan.client.api import Client; Client(retry_seconds=0).workers()"
        environment = {**os.environ, **stack.environment}
        client = subprocess.run([sys.executable, "-c", python], env=environment, check=False,
                                capture_output=True, timeout=60)  # fmt: skip
        assert b"no server answers at" in client.stderr
        told.touch()
        eventually((tmp_path / "ended").exists, 30)
        assert eventually((tmp_path / "ended").read_text) == f"{EXIT_UNAVAILABLE}\n"
        # It has tried again and again, by each of its threads.
        eventually(lambda: worker.stderr.count("no server answers at") >= 2, 30)
        assert heard == []
        assert not forged.exists()
    stack.start()  # on another port: to who goes by the socket that makes no difference
    stack.call("run", "--queue", "other", "--", "true")
    eventually(lambda: len(stack.json("worker", "list", "--json")) == 2, 30)
    worker.terminate()


@pytest.mark.parametrize("given", ["--url", "BANYAN_URL"])
def test_what_is_given_by_hand_goes_where_it_says(
    serve: Callable[..., Server], processes: Processes, given: str
) -> None:
    server = serve()
    socket = server.credentials.parent / near.NAME
    written = profiles.path().read_text()
    assert str(socket) in written
    profiles.path().write_text(written.replace(str(socket), f"{socket}-elsewhere"))
    away = processes.banyan("ls")
    assert away.wait() == EXIT_UNAVAILABLE
    named = ["--url", server.url] if given == "--url" else []
    environment = {"BANYAN_TOKEN": server.tokens["provider"]}
    environment |= {} if named else {"BANYAN_URL": server.url}
    listed = processes.banyan("ls", *named, environment=environment)
    assert listed.wait() == 0, listed.stderr
