"""The open connections of one server process: how many there may be, and how soon they speak.

`acceptor.py` enters a connection before anything is read from it, `protocol.py` says what goes
on in it. It is a newcomer until a valid token has come by it. Newcomers are bounded for each
network and in all: where there are too many, one of the network that has most makes room, as
`Standing` says. So nobody locks others out with connections that say nothing, nor with those that
ask for what all may know. Those with a token leave some room to newcomers, and where they are too
many, whoever has most gives way: so no account locks others out.
"""

import asyncio
import contextlib
import fcntl
import resource
import struct
import termios
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from itertools import islice
from typing import Protocol

from banyan.config import knobs
from banyan.server.newcomers import Newcomers
from banyan.server.shares import Shares
from banyan.server.unread import Unread, Writer

HEADER_SECONDS_MAX = 15.0
SWEEP_SECONDS = 1.0
FILES_KEPT = 128  # for the database, the log, modules: of the limit of open files
CONNECTIONS_LEAST = 16
_STRANGERS_PART = 4  # one of so many of the bytes of unread answers
_NEWCOMERS_PART = 8  # one of so many places is for newcomers only
_LOOKED_AT_MAX = 64  # of the oldest, for one that may go
_NO_BYTES = struct.pack("i", 0)


class Standing(IntEnum):
    """Which newcomers make room first; of equal ones the oldest. The last kind never does."""

    SILENT = 0  # no whole request is there
    ASKS = 1  # one waits for its answer, without a token
    CLAIMS = 2  # one with a token that is not known to be valid
    ARRIVED = 3  # its first bytes wait until they are read, which is about to happen


class Holder(Protocol):
    """Whoever speaks on a connection: first a TLS handshake, then HTTP."""

    def is_busy(self) -> bool:
        """Whether a whole request waits for its answer."""

    def standing(self) -> Standing:
        """How far a newcomer is."""

    def end(self) -> None:
        """Close it now, whatever goes on."""

    def be_late(self) -> None:
        """The head of a request did not come in time."""


class Connection:
    """One connection, from its acceptance to its end."""

    def __init__(self, connections: "Connections", network: str, holder: Holder) -> None:
        self._connections = connections
        self.network = network
        self.owner = network  # of what it costs: once it is trusted, an account
        self.holder = holder
        self.is_trusted = False
        self.has_left = False
        self.has_ended = False  # nothing more is sent by it; an answer may be read still
        self.is_gone = False  # it is not
        self._heed: Callable[[], None] | None = None

    def trust(self, account: str) -> None:
        """A valid token of this account came by it."""
        if not self.has_left:
            self.is_trusted = True
            self.owner = account
            self._connections.trust(self)

    @contextlib.contextmanager
    def heeding(self, heed: Callable[[], None]) -> Iterator[None]:
        """Meanwhile `heed` is called as soon as it has ended, and when it is gone.

        It may be called more than once; a block within this one is told alone.
        """
        before, self._heed = self._heed, heed
        try:
            if self.has_ended:
                heed()
            yield
        finally:
            self._heed = before

    def end_sending(self) -> None:
        """The other end sends nothing more: it has gone, or waits for its answer."""
        self.has_ended = True
        if self._heed:
            self._heed()

    def be_gone(self) -> None:
        """Nobody is there any more."""
        self.is_gone = True
        self.end_sending()

    def await_head(self) -> None:
        """From now on the head of a request has to come soon; nothing, where it has to already."""
        self._connections.late_at.setdefault(self, self._connections.now() + HEADER_SECONDS_MAX)

    def head_came(self) -> None:
        """It is whole."""
        self._connections.late_at.pop(self, None)

    def pause(self, writer: Writer) -> None:
        """An answer is not taken in."""
        unread = self._connections.unread[self.is_trusted]
        unread.enter(writer, self.owner, self._connections.now())

    def resume(self, writer: Writer) -> None:
        """It is, or nobody is there any more."""
        for unread in self._connections.unread.values():
            unread.leave(writer)

    def leave(self) -> None:
        """It has ended. May be said twice."""
        self._connections.leave(self)


class Connections:
    """All of one process; on its event loop only."""

    def __init__(self, most: int, most_of_network: int) -> None:
        """most_of_network: newcomers from one network; 0: no bound."""
        self._most = most
        self._most_newcomers = max(1, most // 2)
        self._most_trusted = max(1, most - max(1, most // _NEWCOMERS_PART))
        self._most_of_network = most_of_network
        self._newcomers: Newcomers[Connection] = Newcomers()
        self._trusted: Shares[Connection] = Shares()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.late_at: dict[Connection, float] = {}  # the soonest first
        unread: int = knobs().UNREAD_BYTES_MAX
        strangers = unread // _STRANGERS_PART
        self.unread = {True: Unread(unread - strangers), False: Unread(strangers)}  # trusted?
        self.count = 0

    def begin(self) -> None:
        """Look for those who are late, each second from now on."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def now(self) -> float:
        """The time of the loop."""
        return self._loop.time() if self._loop else 0.0

    def enter(self, network: str, holder: Holder) -> Connection | None:
        """A new connection; None: there is no room. network: empty where no bound applies."""
        bound = max(1, self._most_of_network) if network and self._most_of_network else self._most
        neighbours = self._newcomers.of(network)
        if len(neighbours) >= bound and not self._displace(neighbours):
            return None
        full = self.count >= self._most or self._newcomers.count >= self._most_newcomers
        if full and not self._displace(self._newcomers.of_most()):
            return None
        connection = Connection(self, network, holder)
        self.count += 1
        self._newcomers.add(network, connection)
        return connection

    def leave(self, connection: Connection) -> None:
        """It has ended."""
        if not connection.has_left:
            connection.has_left = True
            self.count -= 1
            self._newcomers.remove(connection.network, connection)
            self._trusted.leave(connection)
            self.late_at.pop(connection, None)

    def trust(self, connection: Connection) -> None:
        """Its owner is known now. Where there are too many such ones, one goes."""
        self._newcomers.remove(connection.network, connection)
        self._trusted.enter(connection.owner, connection)
        if self._trusted.count > self._most_trusted:
            self._displace_trusted()

    def _displace(self, among: Mapping[Connection, None]) -> bool:
        """End the one of the oldest of these that has the least standing; whether there was one.

        Those that were looked at become the last, so that next time others are.
        """
        least, found = Standing.ARRIVED, None
        for connection in list(islice(among, _LOOKED_AT_MAX)):
            standing = connection.holder.standing()
            if standing < least:
                least, found = standing, connection
            if least is Standing.SILENT:
                break
            self._newcomers.put_last(connection.network, connection)
        if found:
            _end(found)
        return found is not None

    def _displace_trusted(self) -> None:
        """End one of whoever has most: one that nobody is about to answer, if such a one is found.

        Those that were looked at become the last, so that next time others are.
        """
        found = list(islice(self._trusted.of_most(), _LOOKED_AT_MAX))
        idle = next((one for one in found if not one.holder.is_busy()), None)
        for one in found:
            if one is idle:
                break
            self._trusted.enter(one.owner, one)
        _end(idle or found[0])

    def _sweep(self) -> None:
        assert self._loop is not None  # noqa: S101 - it was begun
        self._loop.call_later(SWEEP_SECONDS, self._sweep)
        now = self._loop.time()
        for unread in self.unread.values():
            unread.sweep(now)
        late = []
        for connection, time in self.late_at.items():
            if time > now:
                break
            late.append(connection)
        for connection in late:
            del self.late_at[connection]
            connection.holder.be_late()


def has_arrived(file: int) -> bool:
    """Whether bytes wait in a socket."""
    try:
        return fcntl.ioctl(file, termios.FIONREAD, _NO_BYTES) != _NO_BYTES
    except (OSError, ValueError):  # it is closed already, or has no number any more
        return False


def _end(connection: Connection) -> None:
    connection.leave()
    connection.holder.end()


def most_connections() -> int:
    """As many as CONNECTIONS_MAX, or as the limit of open files allows once it is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    wanted: int = knobs().CONNECTIONS_MAX
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(CONNECTIONS_LEAST, min(wanted, soft - FILES_KEPT))
