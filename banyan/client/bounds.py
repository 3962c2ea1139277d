"""How much a server may answer, and for how long: beyond that an answer is trouble.

Used by the transport for all its connections. A timeout of a socket counts from one piece to the
next, so whoever sends a byte now and then would hold a caller for ever. It must never unpack
what it reads: a megabyte would become gigabytes.
"""

import http.client
import io
import socket
import time
from functools import lru_cache
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connectionpool import HTTPConnectionPool

from banyan.errors import BanyanError
from banyan.json_texts import without_texts

# A page or an output has up to 16 MiB, of which JSON may write each byte as six.
ANSWER_BYTES_MAX = 128 * 1024 * 1024
# The answer as a whole may take as long as its first piece, and a second for so many bytes.
BYTES_PER_SECOND_MIN = 64 * 1024
# Of JSON whose escapes count as the byte that they stand for. Of what is stored in 16 MiB, short
# names of nothing become the most text: `"a":null,` is stored in three bytes.
JSON_BYTES_MAX = 56 * 1024 * 1024
# Lists and objects, twice, and commas: an empty list takes three bytes of text, and seventy of
# memory. Stored, it has eight bytes; a null in a list has three.
JSON_PARTS_MAX = 7_000_000


def bounded(adapter: HTTPAdapter) -> HTTPAdapter:
    """The adapter, whose answers are kept within bounds, also those that come by a proxy.

    Its requests raise `unavailable` for an answer that is too large, or packed.
    """
    _bound(adapter.poolmanager)
    by_proxy = adapter.proxy_manager_for

    def proxy_manager_for(*arguments: Any, **more: Any) -> PoolManager:
        manager: PoolManager = by_proxy(*arguments, **more)
        _bound(manager)
        return manager

    adapter.proxy_manager_for = proxy_manager_for  # type: ignore[method-assign]
    return adapter


def check_json(body: bytes) -> None:
    """To be called before it is parsed. Errors: `unavailable` where that would take much memory."""
    if len(body) <= JSON_PARTS_MAX // 2:
        return
    few = _parts(body) <= JSON_PARTS_MAX or _parts(without_texts(body)) <= JSON_PARTS_MAX
    if few and len(body) - 5 * body.count(rb"\u") <= JSON_BYTES_MAX:
        return
    message = "the server's answer would take too much memory: no Banyan server says so much"
    raise BanyanError("unavailable", message)


def _parts(body: bytes) -> int:
    return 2 * (body.count(b"[") + body.count(b"{")) + body.count(b",")


def _bound(manager: PoolManager) -> None:
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _bounded_pool(pools[scheme]) for scheme in pools}


@lru_cache(maxsize=16)
def _bounded_pool(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    if getattr(pool.ConnectionCls, "response_class", None) is _Response:
        return pool
    connection = type("Connection", (pool.ConnectionCls,), {"response_class": _Response})
    return type("Pool", (pool,), {"ConnectionCls": connection})


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp: io.BufferedReader = io.BufferedReader(_Reader(self.fp.detach(), sock))

    def begin(self) -> None:
        super().begin()
        packed = self.headers.get("Content-Encoding", "identity")
        if packed.lower() != "identity":
            message = f"the server's answer is packed ({packed}), which nobody asked for"
            raise BanyanError("unavailable", message)


class _Reader(io.RawIOBase):
    """What comes by a socket. Errors: TimeoutError; `unavailable` where it is too much."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._socket = sock
        self._seconds = sock.gettimeout()
        self._begun = time.monotonic()
        self._received = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        if self._received and self._seconds is not None:  # the first piece has the socket's own
            self._socket.settimeout(min(self._left(self._seconds), self._seconds))
        count = self._raw.readinto(buffer)
        self._received += count or 0
        if self._received > ANSWER_BYTES_MAX:
            message = f"the server's answer has more than {ANSWER_BYTES_MAX >> 20} MiB"
            raise BanyanError("unavailable", f"{message}: no Banyan server says so much")
        return count

    def _left(self, seconds: float) -> float:
        allowed = seconds + self._received / BYTES_PER_SECOND_MIN
        left = self._begun + allowed - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        return left

    def close(self) -> None:
        self._raw.close()
        super().close()
