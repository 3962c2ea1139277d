"""Asking again for those who were woken; one question serves all who wait for the same.

Called by `banyan.server.asgi`. When a change wakes hundreds who have sent the same request,
the application is asked once. It never asks for a caller that has gone, and never gives an
answer that is older than what the caller was woken by.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from banyan.server.bridge import Answer, Environ
from banyan.server.waiting import Waiter

# What says who somebody is on the network, and has no part in the answer.
_OF_ONE_CALLER = {"REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_USER_AGENT"}
Same = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Request:
    """A request that was read to its end and may be asked more than once."""

    environ: Environ
    body: bytes
    wait_seconds: float

    def same(self) -> Same | None:
        """Equal for requests that have the same answer; None: it may change something."""
        if self.body or self.environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return None
        told = [(k, v) for k, v in self.environ.items() if isinstance(v, str)]
        return tuple(sorted(one for one in told if one[0] not in _OF_ONE_CALLER))


@dataclass
class _Question:
    """What is about to be asked, and for whom."""

    request: Request
    waiters: list[Waiter] = field(default_factory=list)
    answer: "asyncio.Task[Answer | None] | None" = None


class Crowd:
    """All who were woken. `slots` questions of one account are put at one time."""

    def __init__(
        self,
        ask: Callable[[Request], Awaitable[Answer]],
        account_of: Callable[[Request], str],
        slots: int,
    ) -> None:
        self._ask = ask
        self._account_of = account_of
        self._slots_each = slots
        # An account's slots are there for as long as somebody has or awaits one.
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._gathering: dict[Same, _Question] = {}

    async def ask(self, request: Request, waiter: Waiter) -> Answer | None:
        """An answer of after this moment; None where the callers have gone meanwhile."""
        same = request.same()
        if same is None:
            return await self._put(_Question(request, [waiter]))
        question = self._gathering.get(same)
        if question is None:
            question = self._gathering[same] = _Question(request)
            question.answer = asyncio.create_task(self._put(question, same))
        question.waiters.append(waiter)
        assert question.answer is not None  # noqa: S101 - it is made with the question
        return await asyncio.shield(question.answer)  # one who goes leaves it to the others

    async def _put(self, question: _Question, same: Same | None = None) -> Answer | None:
        account = self._account_of(question.request)
        slots = self._slots.setdefault(account, asyncio.Semaphore(self._slots_each))
        async with slots:
            if same is not None:
                del self._gathering[same]  # who is woken from here on is too late for it
            if all(waiter.cancelled for waiter in question.waiters):
                return None
            for waiter in question.waiters:
                waiter.look()
            return await self._ask(question.request)
