"""HTTP as the wire sees it: whole messages, and which verb a request is."""

import json
import re
import socket
from typing import Any

VERBS = (
    "submit", "register", "claim", "beat", "end", "report", "cancel", "retry", "release",
    "link", "edit", "read",
)  # fmt: skip
_POSTS = {
    "claim": "claim", "steal": "claim", "beat": "beat", "cancel": "cancel", "retry": "retry",
    "release": "release",
}  # fmt: skip


def read_message(end: socket.socket) -> bytes:
    """One HTTP message with its Content-Length; empty where the other end has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = end.recv(1 << 16)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?im)^content-length: *([0-9]+)", head)
    parts, left = [body], (int(found[1]) if found else 0) - len(body)
    if b" 304 " in head.split(b"\r\n", 1)[0]:
        left = 0
    while left > 0:
        piece = end.recv(1 << 16)
        if not piece:
            return b""
        parts.append(piece)
        left -= len(piece)
    return head + b"\r\n\r\n" + b"".join(parts)


def verb_of(request: bytes) -> str:
    """Which of VERBS a request is."""
    method, path, *_ = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    parts = path.partition("?")[0].strip("/").split("/")
    if method in ("GET", "HEAD", "OPTIONS"):
        return "read"
    last = parts[-1]
    if method == "POST" and last in _POSTS:
        return _POSTS[last]
    if "continuations" in last:
        return "link"
    if method == "POST" and last in ("tasks", "workers"):
        return {"tasks": "submit", "workers": "register"}[last]
    body = request.partition(b"\r\n\r\n")[2]
    if b"update_execution_data" in body or last == "update_execution_data":
        return "end" if b'"terminated"' in body or b'"cancelled"' in body else "report"
    return "edit"


def status_of(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ", 2)[1])


def word_of(answer: bytes) -> str:
    """The word of a refusal; empty where the answer has none."""
    try:
        body: Any = json.loads(answer.partition(b"\r\n\r\n")[2])
        return str(body["_error"]["word"])
    except (ValueError, KeyError, TypeError):
        return ""
