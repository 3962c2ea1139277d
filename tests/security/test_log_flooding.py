"""What strangers can make a server say: few lines, and none that says less than the truth."""

import io
import logging
import socket
from collections.abc import Iterator

import pytest

from banyan import logs
from banyan.server.protocol import BEHIND_BYTES_MAX
from tests.harness import Server, eventually
from tests.harness.asgi import served
from tests.harness.things import Things

PIPELINED = BEHIND_BYTES_MAX // 20  # more than may wait on one connection


@pytest.fixture
def errors() -> Iterator[list[logging.LogRecord]]:
    """What is logged meanwhile."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = found.append  # type: ignore[method-assign]
    logger = logging.getLogger("uvicorn.error")
    before = logger.level
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.ERROR)
    yield found
    logging.getLogger().removeHandler(handler)
    logger.setLevel(before)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_to_a_connection_that_was_refused_says_nothing(
    errors: list[logging.LogRecord], method: str
) -> None:
    asked = f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode() * PIPELINED
    things = Things()
    with served(things) as front:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", front.port), 30) as connection:
                connection.sendall(asked)
                while connection.recv(65536):
                    pass
        eventually(lambda: front.server.config.loaded and not front.server.server_state.tasks)
    assert things.asked
    assert [record.getMessage() for record in errors] == []


def test_nor_does_it_in_a_server_of_ours(server: Server) -> None:
    before = len(server.started.stderr)
    port = int(server.url.rpartition(":")[2])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * PIPELINED)
            while connection.recv(65536):
                pass
    assert server.anonymous.get("healthz").status_code == 200
    assert "Traceback" not in server.started.stderr[before:]


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_same_complaint_is_bounded_and_what_was_left_out_is_told() -> None:
    clock, stream = Clock(), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Text("%(levelname)s %(message)s"))
    handler.addFilter(logs.Often(clock))
    logger = logging.Logger("flood")
    logger.addHandler(handler)

    def flood(count: int) -> None:
        for number in range(count):
            logger.warning("complaint %d", number)

    flood(1000)
    logger.warning("another")
    for _ in range(100):
        logger.info("wanted")
    assert stream.getvalue().count("complaint") == logs.SAME_PER_SECOND
    assert stream.getvalue().count("another") == 1
    assert stream.getvalue().count("wanted") == 100
    clock.seconds += 1
    flood(2)
    told = [line for line in stream.getvalue().splitlines() if "left_out" in line]
    assert told == [f"WARNING complaint 0 left_out={1000 - logs.SAME_PER_SECOND}"]
