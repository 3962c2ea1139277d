"""The listening sockets: one port for several processes, and never shared with a stranger."""

import socket
from collections import Counter

import pytest

from banyan.errors import BanyanError
from banyan.server import listening


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("others", [1, 2])
def test_a_taken_port_is_refused_however_it_was_taken(processes: int, others: int) -> None:
    first = listening.listen("127.0.0.1", 0, others)
    port = first[0].getsockname()[1]
    with pytest.raises(BanyanError, match=str(port)) as refusal:
        listening.listen("127.0.0.1", port, processes)
    assert refusal.value.word == "usage"
    listening.close(first)
    listening.close(listening.listen("127.0.0.1", port, processes))


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "this machine has no such address"), ("nosuch.invalid", "no machine of this")],
)
def test_an_address_that_is_not_here_is_told_as_that(host: str, said: str) -> None:
    with pytest.raises(BanyanError, match=f"{said}.*--host") as refusal:
        listening.listen(host, 0, 1)
    assert "--port" not in refusal.value.message


def test_connections_are_dealt_out_evenly() -> None:
    sockets = listening.listen("127.0.0.1", 0, 2)
    address = sockets[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(200)]
    dealt: Counter[int] = Counter()
    for number, one in enumerate(sockets):
        one.setblocking(False)
        while True:
            try:
                one.accept()[0].close()
            except BlockingIOError:
                break
            dealt[number] += 1
    assert sum(dealt.values()) == 200
    assert min(dealt[0], dealt[1]) > 50
    for client in clients:
        client.close()
    listening.close(sockets)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}"),
        ("localhost", "http://127.0.0.1:{}"),  # ::1 may be somebody else's
        ("0.0.0.0", "http://127.0.0.1:{}"),  # noqa: S104 - only named here
        ("::", "http://[::1]:{}"),
        ("::1", "http://[::1]:{}"),
        ("host.example.org", "http://host.example.org:{}"),
    ],
)
def test_the_address_is_one_that_clients_here_can_reach(host: str, url: str) -> None:
    [one] = listening.listen("::1" if host == "::1" else "127.0.0.1", 0, 1)
    assert listening.url(host, one) == url.format(one.getsockname()[1])
    listening.close([one])
