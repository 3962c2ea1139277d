"""Who is calling, and what they may see: the one place for roles and owner filters.

Every request passes `authenticate`, and every read and write of another's item passes
`scope`: what is outside of it does not exist for the caller (404, never 403).
"""

import base64
import hmac
import logging
import re
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from pymongo import timeout
from pymongo.errors import PyMongoError

from banyan.config import knobs
from banyan.domain.states import ENDED, HELD
from banyan.errors import BanyanError
from banyan.server.calls import Caller, Context
from banyan.server.refusals import Refusals
from banyan.server.store import accounts, tasks
from banyan.server.store.mongo import now

# A revoked token, or one of a revoked account's attempts, may live on for so long in the other
# server processes.
CACHE_SECONDS = 1.0
LOAD_SECONDS = 5.0  # at most, for reading all tokens
CACHE_TOKENS_MAX = 10_000
_ACCOUNT_TOKEN = re.compile(r"bny_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")
_ATTEMPT_TOKEN = re.compile(r"att_[0-9a-f]{24}_[0-9a-f]{64}")
_METRICS = " metrics"  # in place of an account's name, which has no spaces
logger = logging.getLogger(__name__)

NOBODY: Mapping[str, Any] = {"_id": {"$in": []}}


class Authenticator:
    """Turns the Authorization header into a Caller; remembers tokens for a second."""

    def __init__(self, context: Context, failures_per_minute: int) -> None:
        self._context = context
        self._store = context.store
        read = partial(accounts.all_tokens, self._store)
        self._refusals = Refusals(failures_per_minute, read=read)
        self._seen: dict[str, tuple[float, Caller]] = {}
        self._lock = threading.Lock()
        self._secret: bytes | None = None  # of attempts, where it was read

    def authenticate(self, header: str | None, address: str = "") -> Caller:
        """Errors: `unauthenticated`, the same for no token and for a wrong one.

        `too_many_requests` where that address has sent too many wrong ones; who sends none
        guesses nothing, and is not counted. What was wrong a moment ago, or has not the form of
        a token, costs no look-up. The seal of an attempt's token is nothing to guess: such a one is
        looked up whoever else is behind its address.
        """
        token = _token_in(header or "")
        if token:
            caller = self._remembered(token)
            if not caller and not self._refusals.is_refused(token):
                caller = self._look_up(address, token)
            if caller:
                return caller
            self._refusals.count(address, token, is_guess=not self._is_sealed(token))
        raise BanyanError("unauthenticated", "send a valid token: `Authorization: Bearer <token>`")

    def knows(self, header: str) -> bool:
        """Whether this header was found valid a moment ago. From memory: at once."""
        token = _token_in(header)
        return bool(token and self._remembered(token)) or opens_metrics(header)

    def account_of(self, header: str) -> str | None:
        """Whose this header was when it was last looked up; None: not known. From memory: at once.

        Running tasks are by the side of their owner's account: their tokens are with the workers
        too, which are not to act in its place.
        """
        token = _token_in(header)
        _, caller = self._seen.get(token or "", (0.0, None))
        if not caller:
            return _METRICS if opens_metrics(header) else None
        return f"tasks of {caller.account}" if caller.task else caller.account

    def made_here(self, header: str) -> str | None:
        """The public part of a token that was made here, as far as memory tells: at once.

        Empty for one that only the database may know; None where there is no token, or one that
        can't be valid. The seal of an attempt's token is enough to tell.
        """
        token = _token_in(header)
        if not token or self._refusals.is_refused(token):
            return None
        if _ACCOUNT_TOKEN.fullmatch(token):
            return _public(token) if self._refusals.is_stored(token) else ""
        if not _ATTEMPT_TOKEN.fullmatch(token):
            return None
        if self._secret is None:
            return ""
        return _public(token) if attempt_of(self._secret, token) else None

    def load(self) -> None:
        """Read what `made_here` tells tokens by, unless that was done a moment ago."""
        try:
            with timeout(LOAD_SECONDS):
                self._secret = self._context.attempt_secret
                self._refusals.load()
        except PyMongoError:
            logger.warning("tokens can't be read ahead: the database is away")

    def forget(self) -> None:
        """A token was revoked: look all of them up again."""
        with self._lock:
            self._seen.clear()

    def _remembered(self, token: str) -> Caller | None:
        until, caller = self._seen.get(token, (0.0, None))
        return caller if until > time.monotonic() else None

    def _is_sealed(self, token: str) -> bool:
        """Whether it was made here for an attempt, which may have ended since."""
        sealed = _ATTEMPT_TOKEN.fullmatch(token)
        return bool(sealed and attempt_of(self._context.attempt_secret, token))

    def _look_up(self, address: str, token: str) -> Caller | None:
        """Errors: `too_many_requests`."""
        if _ACCOUNT_TOKEN.fullmatch(token):
            self._refusals.check(address, token)
            caller = self._account_of(token)
        else:
            caller = self._task_of(token)
        if not caller:
            return None
        self._refusals.accept(token)
        with self._lock:
            if len(self._seen) >= CACHE_TOKENS_MAX:
                self._seen.clear()
            self._seen[token] = (time.monotonic() + CACHE_SECONDS, caller)
        return caller

    def _account_of(self, token: str) -> Caller | None:
        found = accounts.find_token(self._store, token)
        if not found:
            return None
        queues = found.get("queues")
        bound = None if queues is None else frozenset(queues)
        return Caller(found["account"], frozenset(found["roles"]), queues=bound)

    def _task_of(self, token: str) -> Caller | None:
        """A running task that speaks for itself, with the token of its attempt.

        Its worker has the token, too: once the account of either is revoked it is worth nothing.
        """
        if not _ATTEMPT_TOKEN.fullmatch(token):
            return None
        attempt_id = attempt_of(self._context.attempt_secret, token)
        task = tasks.of_attempt(self._store, attempt_id) if attempt_id else None
        if not task:
            return None
        depth = task.get("submission_depth", 0)
        return Caller(task["owner"], frozenset({"task"}), attempt_id, task["_id"], depth)


def _token_in(header: str) -> str | None:
    """The token of a Bearer header, or the user name of a Basic one."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[0]
    except ValueError:  # not base64, not ASCII, or not UTF-8 within it
        return None


def _public(token: str) -> str:
    """A token without its secret."""
    kind, public_id, _ = token.split("_", 2)
    return f"{kind}_{public_id}"


def opens_metrics(header: str | None) -> bool:
    """Whether an Authorization header carries METRICS_TOKEN; no token does where that is empty."""
    given, token = _token_in(header or "") or "", knobs().METRICS_TOKEN
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def attempt_token(secret: bytes, attempt_id: ObjectId) -> str:
    """The token of an attempt: its id and a seal that only this database's servers make."""
    seal = hmac.digest(secret, attempt_id.binary, "sha256").hex()
    return f"att_{attempt_id}_{seal}"


def attempt_of(secret: bytes, token: object) -> ObjectId | None:
    """The attempt that a token speaks for; None where it was not made here."""
    try:
        attempt_id = ObjectId(str(token).split("_")[1])
    except (IndexError, InvalidId):
        return None
    given = str(token).encode("utf-8", "surrogatepass")
    return (
        attempt_id
        if hmac.compare_digest(attempt_token(secret, attempt_id).encode(), given)
        else None
    )


def scope(caller: Caller, resource: str) -> dict[str, Any]:
    """The filter within which this caller sees items of a resource."""
    if resource == "accounts":
        return {} if caller.has("admin") else dict(NOBODY)
    if resource == "workers":
        return {} if caller.has("operator", "provider") else {"account": caller.account}
    if caller.has("operator"):
        return {}
    if caller.task:
        return _of_task(caller) if resource == "tasks" else dict(NOBODY)
    visible: list[dict[str, Any]] = []
    if caller.has("provider"):
        visible.append({"owner": caller.account})
    if caller.has("worker"):
        visible += _of_worker(caller, resource)
    if not visible:
        return dict(NOBODY)
    return visible[0] if len(visible) == 1 else {"$or": visible}


def owned(caller: Caller) -> dict[str, Any]:
    """The filter within which this caller changes tasks: what a worker sees is not its own."""
    return scope(replace(caller, roles=caller.roles - {"worker"}), "tasks")


def acting(caller: Caller, roles: Collection[str]) -> Caller:
    """The caller on a route for these roles: what others let it see is nothing there."""
    return replace(caller, roles=caller.roles.intersection(roles))


def _of_task(caller: Caller) -> dict[str, Any]:
    """A running task sees itself, what waits for it, and what it has submitted."""
    own = [{"_id": caller.task}, {"open_parents": caller.task}, {"submitted_by": caller.task}]
    return {"owner": caller.account, "$or": own}


def _of_worker(caller: Caller, resource: str) -> list[dict[str, Any]]:
    """What a worker holds, and what it may claim."""
    if resource == "tasks":
        queues = {} if caller.queues is None else {"queue": {"$in": sorted(caller.queues)}}
        at_once = {"state": "available", "wake_at": {"$not": {"$gt": now()}}, **queues}
        # Who has held a task that waits again has no part in what becomes of it.
        held = {"holder.account": caller.account, "state": {"$in": [*map(str, HELD | ENDED)]}}
        return [held, at_once]
    return [{"account": caller.account}]


def forbidden(caller: Caller, roles: Collection[str]) -> BanyanError:
    """The error for who has none of these roles."""
    told = f"this takes the token of {_either(roles)}; yours is that of {_either(caller.roles)}"
    return BanyanError("forbidden", told)


def _either(roles: Collection[str]) -> str:
    known = {"task": "a running task", "operator": "an operator", "admin": "an admin"}
    return " or ".join(known.get(role, f"a {role}") for role in sorted(roles)) or "nobody"


def check_queues(caller: Caller, queues: Collection[str]) -> None:
    """Errors: `forbidden` where the workers of this account may not serve all of these queues."""
    foreign = [] if caller.queues is None else sorted(set(queues) - caller.queues)
    if foreign:
        served = ", ".join(sorted(caller.queues or ()))
        message = f"workers of this account serve {served} only, not {', '.join(foreign)}"
        raise BanyanError("forbidden", f"{message}; an admin makes accounts for other queues")
