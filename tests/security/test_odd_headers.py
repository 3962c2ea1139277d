"""Headers that no client sends: whoever sends them, with a token or without, finds no bug."""

import socket

import pytest

from tests.harness import Server
from tests.harness.asgi import served
from tests.harness.things import Things

NEVER_HEEDED = ["If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range"]
NAMES = [
    *NEVER_HEEDED,
    *("Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Authorization"),
    *("Cache-Control", "Content-Encoding", "Content-Length", "Content-MD5", "Content-Type"),
    *("Cookie", "Date", "Host", "If-Match", "If-None-Match", "Max-Forwards", "Origin", "Pragma"),
    *("Prefer", "Proxy-Authorization", "Referer", "Sec-Fetch-Site", "Upgrade", "User-Agent"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id"),
]
VALUES = [
    *(b"Mon, 01 Jan 99999999999999 00:00:00 GMT", b"Mon, 01 Jan 0000 00:00:00 GMT"),
    *(b"31 Dec 9999 23:59:59 -2359", b"1 Jan 0001 00:00:00 +2359", b"1 Jan 70 00:00 +9999999999"),
    *(b"", b"-1", b"1e999", b"1_000", b"9" * 30, b"\xff\xfe", "\u0663".encode(), b"%", b"\\"),
    *(b"bytes=0-99999999999999999999999", b"bytes=-", "bytes=\u0663-".encode(), b"bytes=5-1,0-0"),
    *(b'"', b'W/"', b'W/"a", "', b"*", b"a, *", b";;;=,", b'a="', b"a/b;x*=utf-8''%ff"),
    *(b"a/b;x*1=2;x*0*=utf-9''%zz", b"a/b;charset=\xff", b"*/*;q=nan, a/b;q=1e999", b"*/*;q=*"),
    *(b"Basic =", b"Basic \xff", b"Basic 7aCA", b"Digest a=", b"Bearer", b"Bearer a=b, c"),
    *(b"[", b"[::1", b"a:b:c", b"x:99999999999", b"x/y?z#", b"=?utf-8?b?x?=", b"a=b; " * 99),
]
PATHS = ["/healthz", "/openapi.json", "/", "/tasks", "/nowhere"]


def statuses(server: Server, asked: list[bytes]) -> set[int]:
    """Of the answers to these requests, each on a connection of its own."""
    port, found = int(server.url.rpartition(":")[2]), set()
    for one in asked:
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(one)
            found.add(int(connection.recv(65536).split(b" ", 2)[1]))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_header_is_a_bug(server: Server, name: str) -> None:
    token = f"Authorization: Bearer {server.tokens['provider']}\r\n".encode()
    if name in ("Authorization", "Content-Length"):
        token = b""
    host = b"" if name == "Host" else b"Host: x\r\n"
    asked = []
    for value in VALUES:
        for path in PATHS:
            head = f"GET {path} HTTP/1.1\r\nConnection: close\r\n{name}: ".encode() + value
            asked.append(head + b"\r\n" + host + (token if path != "/healthz" else b"") + b"\r\n")
    assert max(statuses(server, asked)) < 500


@pytest.mark.parametrize("name", NEVER_HEEDED)
def test_times_and_ranges_are_not_taken_apart(name: str) -> None:
    with served(Things()) as front:
        answer = front.raw(
            f"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: x\r\n\r\n".encode()
        )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert name.upper().replace("-", "_").encode() not in answer
