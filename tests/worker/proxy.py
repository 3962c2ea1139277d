"""A wire between worker and server that loses answers: it happened, and nobody was told."""

import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Listens on a port of its own and hands on to the server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._rules: list[tuple[bytes, bytes]] = []
        self.lost: list[bytes] = []  # the requests whose answers were lost
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_next(self, request: bytes, answer: bytes = b"", times: int = 1) -> None:
        """Loses answers that hold `answer`, of requests that begin with `request`."""
        with self._lock:
            self._rules += [(request, answer)] * times

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request at a time, as the worker sends them."""
        with client, socket.create_connection(self._server) as server:
            try:
                while request := _message(client):
                    server.sendall(request)
                    answer = self._answer(client, server)
                    if not answer:
                        return
                    if self._is_lost(request, answer):
                        return
                    client.sendall(answer)
            except OSError:
                return

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket) -> bytes:
        """The server's answer; nothing where the client goes first."""
        client.settimeout(0.05)
        server.settimeout(0.05)
        while True:
            try:
                if not server.recv(1, socket.MSG_PEEK):
                    return b""
                server.settimeout(None)
                client.settimeout(None)
                return _message(server)
            except TimeoutError:
                pass
            try:
                if not client.recv(1, socket.MSG_PEEK):
                    return b""
            except TimeoutError:
                pass

    def _is_lost(self, request: bytes, answer: bytes) -> bool:
        with self._lock:
            for rule in self._rules:
                if request.startswith(rule[0]) and rule[1] in answer:
                    self._rules.remove(rule)
                    self.lost.append(request)
                    return True
        return False


def _message(end: socket.socket) -> bytes:
    """One HTTP message with its Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = end.recv(1 << 16)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length:
        piece = end.recv(1 << 16)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body
