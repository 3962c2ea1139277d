"""The wire between everybody and the server: it sees all that is said, and may spoil it.

What it can do to a request: lose its answer after it was executed, deliver it twice, deliver a
copy of it once more seconds later, delay it. It never changes a byte of what arrives.
"""

import contextlib
import re
import select
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.chaos.messages import read_message, status_of, verb_of, word_of

_PIECE = 2000


@dataclass
class Spoiling:
    """What is done to requests of these verbs, each with a likelihood of `share`."""

    kind: str  # lose, double, echo, delay
    verbs: frozenset[str]
    share: float
    seconds: float
    chance: Random
    struck: int = 0


@dataclass
class Seen:
    """What went over the wire, for the judge."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # answers that must never be given
    spoilt: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)  # by verb; none that asked to be held


class Wire:
    """Listens at the server's place; each connection is two sockets and a thread."""

    def __init__(self, host: str, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._listener = socket.create_server((host, 0), backlog=200)
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        self.seen = Seen()
        self._spoilings: list[Spoiling] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def spoil(self, spoiling: Spoiling) -> None:
        """From now on, until `spare`."""
        with self._lock:
            self._spoilings.append(spoiling)

    def spare(self, spoiling: Spoiling) -> None:
        with self._lock:
            self._spoilings.remove(spoiling)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One connection, one request at a time."""
        with client, contextlib.suppress(OSError), self._connect() as server:
            while request := read_message(client):
                answer = self._deliver(client, server, request)
                if not answer:
                    return
                client.sendall(answer)

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._server, 10)

    def _deliver(self, client: socket.socket, server: socket.socket, request: bytes) -> bytes:
        """The answer that the client is to have; none where the connection is to end."""
        verb = verb_of(request)
        kinds = self._kinds(verb)
        if (seconds := kinds.get("delay")) and not _gone_within(client, seconds):
            pass
        sent = time.monotonic()
        server.sendall(request)
        if "echo" in kinds:
            threading.Timer(kinds["echo"], self._echo, [request, verb]).start()
        answer = self._answer(client, server, verb)
        if b"wait=" not in request.partition(b"\r\n\r\n")[0]:
            self.seen.slowest[verb] = max(self.seen.slowest.get(verb, 0.0), time.monotonic() - sent)
        if "double" in kinds and answer:
            server.sendall(request)
            answer = self._answer(client, server, verb)
        return b"" if "lose" in kinds else answer

    def _kinds(self, verb: str) -> dict[str, float]:
        with self._lock:
            found = {}
            for one in self._spoilings:
                if verb in one.verbs and one.chance.random() < one.share:
                    one.struck += 1
                    self.seen.spoilt[f"{one.kind} {verb}"] += 1
                    found[one.kind] = one.seconds
            return found

    def _answer(self, client: socket.socket, server: socket.socket, verb: str) -> bytes:
        """The server's answer; nothing where either end goes first."""
        ready, _, _ = select.select([client, server], [], [])
        if server not in ready:
            return b""
        answer = read_message(server)
        if answer:
            self._note(verb, answer)
        return answer

    def _echo(self, request: bytes, verb: str) -> None:
        """The same request once more, for nobody."""
        with contextlib.suppress(OSError), self._connect() as server:
            server.settimeout(20)
            server.sendall(request)
            if answer := read_message(server):
                self._note(verb, answer)

    def _note(self, verb: str, answer: bytes) -> None:
        status = status_of(answer)
        with self._lock:
            self.seen.answers[verb, status] += 1
            if status >= 400:
                self.seen.words[word_of(answer)] += 1
        silent = status == 503 and not re.search(rb"(?im)^retry-after: *[0-9]", answer)
        if (status >= 500 and status != 503) or silent or b"Traceback" in answer:
            self.seen.wrong.append(f"{verb}: {answer[:_PIECE].decode(errors='replace')}")


def _gone_within(client: socket.socket, seconds: float) -> bool:
    """Whether the client goes while its request is kept back."""
    return bool(select.select([client], [], [], seconds)[0])
