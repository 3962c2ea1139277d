"""What a verb is given and what it gives back: a Call and an Answer, no Flask in sight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from bson import ObjectId
from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from banyan.preferences import prefers_minimal
from banyan.server.store import accounts
from banyan.server.store.mongo import Store


class Signals(Protocol):
    """Whoever wakes waiting requests."""

    def signal(self, topic: str, *, urgent: bool = True, version: str = "") -> None:
        """Something happened that concerns this topic. Callable from any thread.

        urgent:  else it may be told a moment later, together with what comes next.
        version: the etag of what is new, which its maker has with the answer.
        """

    def settle(self, subject: str) -> None:
        """This task may not be claimed any more."""


class Silent:
    """Signals where nobody waits: no server, or one without the waiting layer."""

    def signal(self, topic: str, *, urgent: bool = True, version: str = "") -> None:
        """Nobody listens in this process."""

    def settle(self, subject: str) -> None:
        """Nobody has a turn."""


@dataclass(frozen=True)
class Caller:
    """Who asks: the account and its roles, or a running task with its attempt's token.

    depth: of a task, how many submissions by tasks led to it; 0 where an account submitted it.
    queues: those that the account's workers may serve; None: all.
    """

    account: str
    roles: frozenset[str]
    attempt: ObjectId | None = None
    task: ObjectId | None = None
    depth: int = 0
    queues: frozenset[str] | None = None

    def has(self, *roles: str) -> bool:
        """Whether the caller has one of these roles."""
        return not self.roles.isdisjoint(roles)


@dataclass(frozen=True)
class Context:
    """What every verb works with; made once by `create_app`."""

    store: Store
    signals: Signals

    @cached_property
    def attempt_secret(self) -> bytes:
        """The key of attempt tokens; read when it is needed, so that a server may start first."""
        return accounts.attempt_secret(self.store)


@dataclass(frozen=True)
class Call:
    """One request, read and authorised.

    item_id: the item's id, None for the collection.
    body:    the parsed JSON; None where there was none.
    row:     the row of VIRTUAL_RESOURCES that led here, if one did.
    """

    context: Context
    caller: Caller
    resource: str
    item_id: ObjectId | None
    body: Any
    args: Mapping[str, str]
    headers: Mapping[str, str]
    name: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The database."""
        return self.context.store

    @property
    def minimal(self) -> bool:
        """`Prefer: return=minimal`: no links and no echoes, please."""
        return prefers_minimal(self.headers.get("Prefer", ""))

    @property
    def if_match(self) -> ETags | None:
        """The versions that the caller means to change; None where it says nothing, or `*`.

        A weak tag names its version too: proxies that pack answers make tags weak.
        """
        given = self.headers.get("If-Match", "*").strip()
        return None if given == "*" else parse_etags(given)


@dataclass(frozen=True)
class Answer:
    """What goes back.

    wait_for: nothing new yet; the topics that would bring it.
    wait_as:  who waits for work, as `waiting.Claimant` has it, joined by blanks.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_for: Sequence[str] = ()
    wait_as: str = ""


OK: Mapping[str, Any] = {"_status": "OK"}
