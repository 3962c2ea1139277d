"""The unix socket of a server: who may open it, and who is at its other end.

Each end asks the kernel about the other before it says or hears anything.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.client import local
from banyan.client.api import Client
from banyan.client.transport import Transport
from banyan.errors import EXIT_UNAVAILABLE, EXIT_USAGE, BanyanError
from banyan.server import near
from banyan.worker.connection import Connection
from tests.e2e.stack import Stack
from tests.harness import Processes, Server, eventually, marked_processes
from tests.harness.processes import ROOT
from tests.security.others import NOBODY, give
from tests.worker.test_run_as import needs_root


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that other users may enter: nothing but what is tested stands in their way."""
    made = Path(tempfile.mkdtemp(prefix="banyan-socket-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def stack(processes: Processes, tmp_path: Path) -> Stack:
    return Stack(processes, tmp_path, "--cores", "2")


# --- The socket -------------------------------------------------------------------------


def test_the_socket_and_the_workers_token_are_nobody_elses(stack: Stack) -> None:
    def mode(name: str) -> int:
        return stat.S_IMODE((stack.data / name).stat().st_mode)

    assert stat.S_IMODE(stack.data.stat().st_mode) == 0o700
    assert mode(near.NAME) == mode("worker.token") == mode("credentials") == 0o600
    tokens = json.loads(stack.credentials.read_text())
    assert (stack.data / "worker.token").read_text() == f"{tokens['worker']}\n"
    commands = marked_processes(stack.processes.mark).values()
    [command] = [one for one in commands if "--token-file" in one and "last_will" not in one]
    assert str(stack.credentials) not in command
    assert f"--socket {stack.data / near.NAME} " in command
    assert f"--token-file {stack.data / 'worker.token'} " in command
    shown = stack.text("ls", "--curl")
    assert f"curl --unix-socket {stack.data / near.NAME} " in shown
    assert "'http://localhost/tasks?" in shown


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
@pytest.mark.parametrize("long", ["", "x" * 100])
def test_a_request_as_curl_works_where_it_is_pasted(
    processes: Processes, tmp_path: Path, long: str
) -> None:
    """Also where the path is longer than the address of a socket: curl would not take it."""
    directory = tmp_path / f"a b{long}"
    directory.mkdir()
    stack = Stack(processes, directory, "--no-worker")
    token = json.loads(stack.credentials.read_text())["provider"]

    def pasted(*command: str) -> Any:
        line = stack.text(command[0], "--curl", *command[1:])
        assert "--unix-socket" in line
        more = {"env": {**os.environ, "BANYAN_TOKEN": token}, "cwd": "/"}
        return json.loads(subprocess.check_output(["sh", "-c", line], timeout=60, **more))

    pasted("submit", "--name", "pasted", "true")
    assert [one["name"] for one in pasted("ls")["_items"]] == ["pasted"]


def test_who_gives_others_access_is_told_as_whom_their_tasks_run(
    stack: Stack, serve: Callable[..., Server], processes: Processes, tmp_path: Path
) -> None:
    def told(*roles: str) -> str:
        options = [word for role in roles for word in ("--role", role)]
        return stack.call("account", "create", f"new-{roles[0]}", *options).stderr.decode()

    for role in ("provider", "operator"):
        assert f"whoever may submit can then read {stack.data}, the admin's token too" in told(role)
    assert "whoever may submit" not in told("worker")
    serve(data="alone")  # without a worker
    other = processes.banyan("account", "create", "new", "--role", "provider")
    assert other.wait() == 0
    assert "whoever may submit" not in other.stderr


def test_it_is_closed_to_others_from_the_first_moment_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = socket.socket.bind

    def bind(self: socket.socket, address: str) -> None:
        real(self, address)
        modes.append(stat.S_IMODE(os.stat(address).st_mode))

    monkeypatch.setattr(socket.socket, "bind", bind)
    before = os.umask(0)
    try:
        made = near.listen(directory / near.NAME)
    finally:
        os.umask(before)
    assert modes == [0o600]
    near.close(directory / near.NAME, made)
    assert not (directory / near.NAME).exists()


def test_what_a_killed_server_left_is_replaced_and_what_a_living_one_has_is_not(
    stack: Stack, processes: Processes
) -> None:
    path = stack.data / near.NAME
    first = path.stat().st_ino
    second = processes.banyan("up", "--port", "0", "--data", str(stack.data))
    assert second.wait(20) != 0
    assert path.stat().st_ino == first
    stack.call("ls")
    stack.started.kill()
    assert path.exists()
    assert "no server answers" in stack.call("ls", code=EXIT_UNAVAILABLE).stderr.decode()
    stack.start()
    stack.call("run", "--", "true")
    assert stack.started.terminate() == 0
    assert not path.exists()


def test_a_long_path_is_no_hindrance(processes: Processes, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    stack = Stack(processes, deep, "--cores", "1")
    assert stack.text("run", "--", "echo", "hi") == "hi"


def test_two_stacks_have_a_socket_each(processes: Processes, tmp_path: Path) -> None:
    stacks = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stacks.append(Stack(processes, tmp_path / name, "--cores", "1"))
    for number, stack in enumerate(stacks):
        assert stack.text("run", "--name", f"of-{number}", "--", "echo", str(number)) == str(number)
    for number, stack in enumerate(stacks):
        assert [one["name"] for one in stack.json("ls", "--json")] == [f"of-{number}"]


def test_a_url_may_name_the_socket(serve: Callable[..., Server], processes: Processes) -> None:
    server = serve()
    url = f"unix://{server.credentials.parent / near.NAME}"
    with Client(url, server.tokens["provider"]) as client:
        task = client.submit({"command": "true"})
        assert client.get(task["_id"])["state"] == "available"
    worker = processes.banyan("worker", "--url", url, "--token-file", str(server.credentials))
    assert worker.wait(20) == EXIT_USAGE
    assert "--socket" in worker.stderr


def test_several_processes_serve_it_and_one_may_die(serve: Callable[..., Server]) -> None:
    server = serve(server_processes=2)
    url = f"unix://{server.credentials.parent / near.NAME}"
    for _ in range(40):
        with Client(url, server.tokens["provider"], retry_seconds=0) as client:
            assert client.workers() == []


def test_several_processes_share_the_connections(
    serve: Callable[..., Server], processes: Processes
) -> None:
    server = serve(server_processes=2)
    path = server.credentials.parent / near.NAME

    def sockets() -> list[int]:
        """How many each server process has open."""
        found = marked_processes(processes.mark).items()
        serving = [pid for pid, command in found if "server.serve" in command]
        return [
            sum("socket:" in os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())
            for pid in sorted(pid for pid in serving if "last_will" not in dict(found)[pid])
        ]

    before = sockets()
    clients = [local.connect(str(path), 10.0) for _ in range(100)]
    eventually(lambda: sum(sockets()) >= sum(before) + 100)
    first, second = (now - then for now, then in zip(sockets(), before, strict=True))
    assert min(first, second) > 15
    for client in clients:
        client.close()


# --- Who is at the other end ------------------------------------------------------------


# The interpreter may lie where others can't come: it is loaded before the script is another's.
BECOMES = f"""
import encodings.idna, os, socket, sys
import banyan.client.local as local
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


def nobodys(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A Python script that runs as another user."""
    return subprocess.Popen(
        [sys.executable, "-c", BECOMES + script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def as_nobody(script: str, *arguments: str) -> tuple[str, str]:
    """What it prints, and what it complains of."""
    printed, complaints = nobodys(script, *arguments).communicate(timeout=60)
    return printed, complaints


ASKS = """
one = socket.socket(socket.AF_UNIX)
one.settimeout(20)
one.connect(sys.argv[1])
got = b""
try:
    one.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    while piece := one.recv(4096):
        got += piece
except ConnectionError:
    pass
print("connected and got", got)
"""


@needs_root
def test_another_user_gets_nothing_from_the_socket_even_where_its_modes_were_opened(
    serve: Callable[..., Server], directory: Path
) -> None:
    server = serve(data=str(directory / "data"))
    path = directory / "data" / near.NAME
    assert "Permission denied" in as_nobody(ASKS, str(path))[1]
    path.parent.chmod(0o755)
    path.chmod(0o777)
    told = as_nobody(ASKS, str(path))
    assert told == ("connected and got b''\n", "")
    with Client(f"unix://{path}", server.tokens["provider"]) as client:
        assert client.workers() == []


SERVES = """
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
one.listen()
print("listening", flush=True)
while True:
    connection, _ = one.accept()
    connection.settimeout(20)
    print("got", connection.recv(4096), flush=True)
"""


@pytest.mark.parametrize("transport", ["client", "worker"])
@needs_root
def test_a_token_goes_to_no_socket_that_another_user_serves(
    directory: Path, transport: str
) -> None:
    directory.chmod(0o777)  # so that another user can put a socket there
    path = directory / near.NAME
    with nobodys(SERVES, str(path)) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline() == "listening\n"
            made: Transport = (
                Transport("http://127.0.0.1:1", "secret", retry_seconds=0, socket=str(path))
                if transport == "client"
                else Connection("http://127.0.0.1:1", "secret", path=str(path))
            )
            with pytest.raises(BanyanError, match=f"served by user {NOBODY}") as refusal:
                made.request("GET", "/")
            assert refusal.value.word == "unavailable"
            assert serving.stdout.readline() == "got b''\n"
            directory.chmod(0o755)  # in /tmp: anybody could have made it, when it was gone
            give(directory)
            with pytest.raises(BanyanError, match=f"served by user {NOBODY}"):
                made.request("GET", "/")
            assert serving.stdout.readline() == "got b''\n"
        finally:
            serving.kill()


@needs_root
def test_root_may_talk_to_a_service_in_a_place_of_its_own(services: Path) -> None:
    path = services / near.NAME
    give(services)
    with nobodys(SERVES, str(path)) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline() == "listening\n"
            local.connect(str(path), 5.0).close()
            services.chmod(0o777)
            with pytest.raises(BanyanError, match=f"served by user {NOBODY}"):
                local.connect(str(path), 5.0)
            services.chmod(0o755)
            os.chown(services, NOBODY + 1, -1)  # a third one's
            with pytest.raises(BanyanError, match=f"served by user {NOBODY}"):
                local.connect(str(path), 5.0)
        finally:
            serving.kill()


@needs_root
def test_who_may_not_use_the_socket_is_told_so(directory: Path) -> None:
    made = near.listen(directory / near.NAME)
    told = as_nobody("local.connect(sys.argv[1], 5.0)", str(directory / near.NAME))
    assert "open to another user only" in told[1]
    near.close(directory / near.NAME, made)
