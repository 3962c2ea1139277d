"""What a false server says takes no memory many times its size; the largest true answers are read.

An empty list is three bytes of text and seventy of memory: 120 MB of them took 3 GB.
"""

import json
from collections.abc import Callable

import pytest

from banyan.client.transport import Transport
from banyan.errors import BanyanError
from banyan.worker.connection import Connection
from tests.client.scripted import Scripted
from tests.client.scripted import server as server

STORED_BYTES = 16 * 1024 * 1024  # PAGE_BYTES_MAX


# Each is made in its own test: they are large.
FALSE: dict[str, Callable[[], bytes]] = {
    "empty lists": lambda: b"[" + b"[]," * 2_500_000 + b"[]]",
    "objects": lambda: b"[" + b'{"a":{}},' * 1_500_000 + b"0]",
    "numbers": lambda: b"[" + b"1," * 7_500_000 + b"1]",
    "behind text": lambda: b'["\\\\","\\"",' + b"[]," * 2_500_000 + b"[]]",
    "behind what seems to be text": lambda: ("[\u2200" + "[]," * 2_500_000 + "[]]").encode(
        "utf-16"
    ),
    "long text": lambda: b'["' + b"x" * (60 << 20) + b'"]',
}


@pytest.mark.parametrize("what", FALSE)
@pytest.mark.parametrize("status", [200, 422])
def test_what_would_take_much_memory_is_not_parsed(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, what: str, status: int
) -> None:
    parsed = [0]
    loads = json.loads

    def counted(text: str) -> object:
        parsed[0] += 1
        return loads(text)

    monkeypatch.setattr("banyan.client.transport.jsonlib.loads", counted)
    server.replies = [(status, {}, FALSE[what]())]
    for call in (
        lambda: Transport(server.url, retry_seconds=0).request("GET", "/"),
        lambda: Connection(server.url, "").held("GET", "/", None, 0),
    ):
        with pytest.raises(BanyanError) as caught:
            call()
        assert caught.value.word == "unavailable" or status == 422
    assert parsed == [0]
    server.replies = [(200, {}, b"[]")]
    Transport(server.url).request("GET", "/")
    assert parsed == [1]


TRUE: dict[str, Callable[[], object]] = {
    "nulls": lambda: {"null": [None] * (STORED_BYTES // 6)},
    "short names": lambda: [dict.fromkeys("abcdefghijklmnopqrst")] * (STORED_BYTES // 68),
    "text of commas": lambda: ["," * STORED_BYTES],
    "text of brackets": lambda: ["[{" * (STORED_BYTES // 2)],
    "text of quotes": lambda: ['"' * STORED_BYTES],
    "control characters": lambda: ["\x01" * STORED_BYTES],
    "small lists": lambda: [[[]] * 9] * (STORED_BYTES // 80),
}


@pytest.mark.parametrize("what", TRUE)
def test_the_largest_pages_are_read(server: Scripted, what: str) -> None:
    page = TRUE[what]()
    told = json.dumps(page, separators=(",", ":")).encode()
    server.replies = [(200, {}, told)]
    assert Transport(server.url).request("GET", "/").body == page
