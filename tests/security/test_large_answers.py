"""What a false server says takes no memory many times its size; the largest true answers are read.

An empty list is three bytes of text and seventy of memory: 120 MB of them took 3 GB.
"""

import json

import pytest

from banyan.client.transport import Transport
from banyan.errors import BanyanError
from banyan.worker.connection import Connection
from tests.client.scripted import Scripted
from tests.client.scripted import server as server

STORED_BYTES = 16 * 1024 * 1024  # PAGE_BYTES_MAX


FALSE = {
    "empty lists": b"[" + b"[]," * 2_500_000 + b"[]]",
    "objects": b"[" + b'{"a":{}},' * 1_500_000 + b"0]",
    "numbers": b"[" + b"1," * 7_500_000 + b"1]",
    "behind text": b'["\\\\","\\"",' + b"[]," * 2_500_000 + b"[]]",
    "behind what seems to be text": ("[\u2200" + "[]," * 2_500_000 + "[]]").encode("utf-16"),
    "long text": b'["' + b"x" * (60 << 20) + b'"]',
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
    server.replies = [(status, {}, FALSE[what])]
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


TRUE = {
    "nulls": {"null": [None] * (STORED_BYTES // 6)},
    "short names": [dict.fromkeys("abcdefghijklmnopqrst")] * (STORED_BYTES // 68),
    "text of commas": ["," * STORED_BYTES],
    "text of brackets": ["[{" * (STORED_BYTES // 2)],
    "text of quotes": ['"' * STORED_BYTES],
    "control characters": ["\x01" * STORED_BYTES],
    "small lists": [[[]] * 9] * (STORED_BYTES // 80),
}


@pytest.mark.parametrize("what", TRUE)
def test_the_largest_pages_are_read(server: Scripted, what: str) -> None:
    told = json.dumps(TRUE[what], separators=(",", ":")).encode()
    server.replies = [(200, {}, told)]
    assert Transport(server.url).request("GET", "/").body == TRUE[what]
