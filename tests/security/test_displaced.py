"""Who is displaced by more connections of his own account: nothing is lost, nothing done twice."""

import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from banyan.client.transport import Transport
from banyan.server.connections import Connections
from banyan.server.exposure import Tls
from tests.harness import Processes, Server, eventually
from tests.harness.asgi import Served, served
from tests.harness.things import Things
from tests.worker.crew import Crew

CERTIFICATES = Path(__file__).with_name("certificates")
CA = CERTIFICATES / "here.pem"
TOKEN = "token"


def asks(port: int, token: str, path: str = "/", tls: bool = False) -> socket.socket:
    """A connection by which the token has come; it stays open."""
    made = socket.create_connection(("127.0.0.1", port), 30)
    if tls:
        context = ssl.create_default_context(cafile=str(CA))
        made = context.wrap_socket(made, server_hostname="localhost")
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
    assert made.recv(65536).startswith(b"HTTP/1.1 200 ")
    return made


@pytest.mark.parametrize("tls", [None, Tls(CA, CERTIFICATES / "here.key")], ids=["plain", "tls"])
def test_an_idle_client_connects_anew_and_is_told_nothing(tls: Tls | None) -> None:
    def displace(front: Served, stack: ExitStack) -> None:
        for _ in range(30):
            stack.enter_context(asks(front.port, f"Bearer {TOKEN}", tls=bool(tls)))

    things, some = Things(), Connections(16, 0)
    with (
        ExitStack() as stack,
        served(things, connections=some, tls=tls, account_of=lambda header: header) as front,
    ):
        url = f"https://localhost:{front.port}" if tls else front.url
        client = Transport(url, TOKEN, retry_seconds=0, tls_ca=str(CA) if tls else "")
        client.request("GET", "/first")
        for number in range(3):
            displace(front, stack)
            before = things.asked
            # Not to be repeated: it goes out once, and is answered.
            answer = client.request("POST", f"/again/{number}", json={})
            assert answer.body["PATH_INFO"] == f"/again/{number}"
            assert things.asked == before + 1


@contextmanager
def crowding(port: int, token: str) -> Iterator[list[int]]:
    """Connections of this token without end, of which the last ones stay open; their number."""
    count, ended = [0], threading.Event()

    def crowd() -> None:
        kept: deque[socket.socket] = deque()
        while not ended.is_set():
            with suppress(OSError, AssertionError):  # it may be displaced before it is answered
                kept.append(asks(port, f"Bearer {token}", "/workers"))
                count[0] += 1
            if len(kept) > 30:
                kept.popleft().close()
        for one in kept:
            one.close()

    thread = threading.Thread(target=crowd)
    thread.start()
    try:
        yield count
    finally:
        ended.set()
        thread.join(30)


@pytest.fixture
def crew(processes: Processes, serve: Callable[..., Server], tmp_path: Path) -> Iterator[Crew]:
    """Workers for a server that has few connections."""
    own = Crew(processes, serve(CONNECTIONS_MAX=16, CONNECTIONS_PER_ADDRESS_MAX=0), tmp_path)
    yield own
    own.dismiss()


def test_a_worker_goes_on_and_each_task_runs_once(crew: Crew, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    crew.worker("one", "--cores", "2")
    crew.registered()
    port = int(crew.url.rpartition(":")[2])
    with crowding(port, crew.server.tokens["worker"]) as count:
        eventually(lambda: count[0] > 40, 60)
        tasks = [crew.submit(f"echo {number}; echo {number} >> {file}") for number in range(20)]
        for number, task in enumerate(tasks):
            assert crew.ended(task, seconds=60)["outcome"] == "success"
            assert crew.statuses(task) == ["success"]
            eventually(lambda t=task, n=number: crew.log(t) == f"{n}\n".encode(), 60)
        before = count[0]
        eventually(lambda: count[0] > before, 60)  # it is going on
    assert sorted(map(int, file.read_text().split())) == list(range(20))
