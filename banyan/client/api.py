"""The typed client: what a program may ask of a Banyan server.

Called by the command line and by anybody's programs. A Client is for one thread. It must
never do a thing twice because an answer was lost: tasks get their ids here, so that a
repeated request is recognised.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from html import escape
from types import TracebackType
from typing import Any, Self, Unpack, cast, overload

from banyan.client import bulk
from banyan.client.bulk import OnPiece
from banyan.client.failures import error_of
from banyan.client.graph import in_requests, parents_first, prepared
from banyan.client.ids import PIECE, in_pieces
from banyan.client.output import Output
from banyan.client.paging import items_on_page
from banyan.client.progress import Progress
from banyan.client.transport import Options, Transport
from banyan.client.waiting import wait_until_ended
from banyan.errors import BanyanError
from banyan.profiles import find_access, find_tls_ca

Document = dict[str, Any]  # one resource as the server tells it

PAGE_ITEMS = 1000


class Client:
    """One server, seen with one token. Every method raises BanyanError with the server's word."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        profile: str | None = None,
        role: str = "provider",
        retry_seconds: float = 30.0,
        tls_ca: str | None = None,
    ) -> None:
        """Where url or token is left out: `BANYAN_URL`, `BANYAN_TOKEN`, then the profile.

        url: `http://HOST:PORT`, or `unix:///PATH` for the socket of a server here, which is
        also what the profile of `banyan up` names.

        tls_ca: a PEM file with whom to trust as the server; left out: `BANYAN_TLS_CA`, the
        profile's, else the machine's certificate authorities.
        """
        access = find_access(role, url, token, profile)
        trusted = find_tls_ca(access.url, tls_ca, profile)
        self.transport = Transport(access.url, access.token, retry_seconds, trusted, access.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def clone(self) -> "Client":
        """One more of the same, for another thread."""
        other = copy(self)
        other.transport = self.transport.clone()
        return other

    def close(self) -> None:
        """Closes the connections."""
        self.transport.close()

    def _repr_html_(self) -> str:
        """For a notebook: the server, and its tasks by state."""
        counted = self.statistics(by=["state"])["by_state"]
        told = ", ".join(f"{count} {state}" for state, count in sorted(counted.items()))
        url = escape(self.transport.url)
        return f"<div>Banyan at <code>{url}</code>: {escape(told) or 'no tasks'}</div>"

    def account(self) -> str:
        """The name of the account whose token this is; empty where the server does not tell it."""
        name = self._body("GET", "/").get("account")
        return name if isinstance(name, str) else ""

    # --- tasks -------------------------------------------------------------------------

    @overload
    def submit(
        self, tasks: Mapping[str, Any], *, hold: bool = ..., on_piece: OnPiece | None = ...
    ) -> Document: ...
    @overload
    def submit(
        self,
        tasks: Sequence[Mapping[str, Any]],
        *,
        hold: bool = ...,
        on_piece: OnPiece | None = ...,
    ) -> list[Document]: ...
    def submit(
        self,
        tasks: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        hold: bool = False,
        on_piece: OnPiece | None = None,
    ) -> Document | list[Document]:
        """Creates one task, or a list with edges between its tasks; any length, in order.

        A list of up to 1,000 with up to 100,000 edges is stored as a whole or not at all; a
        longer one is sent in pieces, parents first. Fields: those of `POST /tasks`; `_id` and
        `state` are added where they are missing. A task may have any number of parents: more
        than 1,024 of a kind are gathered by groups, tasks without a command that are added.
        hold: create them inactive.
        on_piece: called after each request with how many are stored so far.
        Returns the documents, each with at least `_id` and `state`.
        """
        if isinstance(tasks, Mapping):
            return self.submit([tasks], hold=hold)[0]
        ready = prepared(tasks, hold)
        created: dict[int, Document] = {}
        order = parents_first(ready)
        for places in in_requests(ready, order):
            documents = self._create([ready[place] for place in places])
            created.update(zip(places, documents, strict=True))
            if on_piece:
                on_piece(min(len(created), len(tasks)))
        return [created[place] for place in range(len(tasks))]

    def get(self, id: str) -> Document:
        """One task, whole."""
        return self._body("GET", f"/tasks/{id}")

    def find(
        self,
        where: Mapping[str, Any] | None = None,
        *,
        projection: Mapping[str, int] | None = None,
        sort: str | None = None,
        limit: int | None = None,
        resource: str = "tasks",
    ) -> Iterator[Document]:
        """Tasks (or items of another resource) that match a filter, page by page.

        sort: field names, a minus before one for descending: "-_created,name".
        Errors: `unavailable` where the pages are not those that were asked for, or have no end.
        """
        size = PAGE_ITEMS if limit is None else min(PAGE_ITEMS, limit)
        asked = {"where": where, "projection": projection, "sort": sort, "max_results": size}
        params = {name: value for name, value in asked.items() if value is not None}
        left, start = limit, 0
        while True:
            params |= {"page": start // size + 1, "max_results": size}
            body = self._body("GET", f"/{resource}", params=params, prefer="return=minimal")
            items: list[Document] = body["_items"]
            size = items_on_page(body["_meta"], start, size, len(items))
            yield from items[:left]
            left = None if left is None else left - len(items)
            if len(items) < size or (left is not None and left <= 0):
                return
            start += size

    def release(self, ids: Iterable[str], *, on_piece: OnPiece | None = None) -> None:
        """Lets held (inactive) tasks go. Errors: of the first that could not be released."""
        bulk.release(self.transport, ids, on_piece)

    def cancel(
        self, ids: Iterable[str], *, force: bool = False, on_piece: OnPiece | None = None
    ) -> None:
        """Cancels tasks; those that have ended stay as they are.

        force: what runs is killed at once, also what was cancelled before and still ends;
               otherwise it has its `max_shutdown_time_milliseconds` after SIGTERM.
        """
        bulk.act(self.transport, "cancel", ids, {"force": True} if force else {}, on_piece)

    def retry(
        self,
        ids: Iterable[str],
        *,
        downstream: bool = False,
        changes: Mapping[str, Any] | None = None,
        on_piece: OnPiece | None = None,
    ) -> None:
        """Gives ended tasks one more attempt.

        downstream: what was cancelled because of them waits for them again.
        changes:    `requested_resources` (what is left out stays) and `timeout_milliseconds`
                    from now on: more memory for what had too little.
        """
        # Not repeatable: the attempt that a lost answer told of may have failed meanwhile.
        body = {"downstream": downstream, **(changes or {})}
        bulk.act(self.transport, "retry", ids, body, on_piece, repeatable=False)

    def change(
        self,
        ids: Iterable[str],
        fields: Mapping[str, Any],
        *,
        on_piece: OnPiece | None = None,
    ) -> None:
        """Changes fields of tasks; of `requested_resources`, what is left out stays.

        A waiting (available) task is changed where it waits, if no worker has claimed it by then.
        Errors: of the first that could not be changed: most fields stay once a task runs.
        """
        bulk.change(self.transport, ids, fields, on_piece)

    def forget(self, ids: Iterable[str], *, on_piece: OnPiece | None = None) -> None:
        """Removes ended tasks for good, with their attempts and output.

        Errors: `illegal_transition` where one has not ended, or hangs together with one that
        has not; of the (up to 1,000) tasks of that request none is removed then.
        """
        # As a list also for one: that it is gone, if an answer was lost, is no error there.
        bulk.act(self.transport, "forget", ids, {}, on_piece, always_list=True)

    def wait(
        self,
        ids: Iterable[str],
        *,
        timeout_seconds: float | None = None,
        on_change: Callable[[int, int], None] | None = None,
    ) -> list[Document]:
        """Waits until all the tasks have ended: `_id`, `state` and `outcome` of each, in order.

        One held request at a time, however many tasks there are.
        on_change: called with (ended, all) whenever that changes.
        Errors: TimeoutError; `not_found` naming what does not exist.
        """
        return wait_until_ended(self.transport, list(ids), timeout_seconds, on_change)

    def explain(self, id: str) -> Document:
        """Why it does not run, or where its time went: `state`, `causes`, `times`."""
        return self._body("GET", f"/tasks/{id}/explain")

    def script(self, id: str) -> str:
        """A shell script that runs it by hand."""
        body = self.transport.request("GET", f"/tasks/{id}/script", raw=True).body
        return bytes(body).decode()

    # --- output ------------------------------------------------------------------------

    def log(self, id: str, *, attempt: int | None = None, stream: str | None = None) -> bytes:
        """What an attempt (left out: the last) has written so far; both streams, or one."""
        return Output(self.transport, id, stream).of_attempt(attempt)

    def follow(
        self, id: str, *, attempt: int | None = None, stream: str | None = None
    ) -> Iterator[bytes]:
        """The output as it comes, until it is complete.

        attempt: left out: the newest and every later one, until the task has ended.
        """
        return Output(self.transport, id, stream).follow(attempt)

    # --- accounts and workers ----------------------------------------------------------

    def create_account(
        self, name: str, roles: Sequence[str], queues: Sequence[str] = ()
    ) -> Document:
        """A new account; its `token` is in this answer and nowhere else. Needs an admin.

        queues: those that its workers may serve; left out: all.
        """
        body = {"name": name, "roles": list(roles), **({"queues": list(queues)} if queues else {})}
        return self._body("POST", "/accounts", json=body)

    def accounts(self) -> list[Document]:
        """All accounts, without their tokens."""
        return list(self.find(resource="accounts"))

    def issue_token(self, id: str) -> Document:
        """One more `token` of an account, which is in use again if it was revoked."""
        return self._body("POST", f"/accounts/{id}/issue", json={})

    def revoke_account(self, id: str) -> Document:
        """Makes all tokens of an account worthless, and removes its workers.

        Its tasks go on; `open_task_count` of the answer tells how many have not ended.
        """
        path = f"/accounts/{id}/revoke"
        return cast(Document, self.transport.request("POST", path, json={}, repeatable=True).body)

    def workers(self) -> list[Document]:
        """All workers: capacity, what is reserved and used, last beat, mode."""
        return list(self.find(resource="workers"))

    def drain_worker(self, id: str) -> None:
        """It finishes what it runs and takes nothing new."""
        self.transport.request("POST", f"/workers/{id}/drain", json={}, repeatable=True)

    def resume_worker(self, id: str) -> None:
        """It takes tasks again, after a drain."""
        self.transport.request("POST", f"/workers/{id}/resume", json={}, repeatable=True)

    def remove_worker(self, id: str) -> None:
        """It ends, and what it runs is given back."""
        self.transport.request("DELETE", f"/workers/{id}")

    # --- counts ------------------------------------------------------------------------

    def statistics(
        self,
        where: Mapping[str, Any] | None = None,
        by: Sequence[str] = ("state", "outcome"),
        *,
        window: str | None = None,
        since: str | None = None,
        buckets: int = 24,
    ) -> Document:
        """`count`, `by_state` and the like of tasks that match.

        by:     state, outcome, queue, owner, name, or a tag as in tags.sweep.
        window: a duration like "24 hours": what was since then, too: `ended`,
                `waiting_milliseconds`, `running_milliseconds`, and `buckets` of it.
        since:  a time, in place of `window`.
        """
        params = {"by": ",".join(by), **({"where": where} if where else {})}
        over = _over(window, since, buckets)
        return self._body("GET", "/tasks/statistics", params={**params, **over})

    def usage(self, *, window: str | None = None, since: str | None = None) -> Document:
        """What each account has used (an operator sees all, others themselves), most first.

        Of each of `_items`: `owner`, `attempts` that ended, `failed`, `cpu_seconds`, and
        `core_seconds`, `memory_byte_seconds`, `gpu_seconds` of what was granted.
        window: a duration like "30 days", which is the default; since: a time, in its place.
        """
        over = {"window": window, "from": since}
        params = {name: value for name, value in over.items() if value is not None}
        return self._body("GET", "/tasks/usage", params=params or None)

    def progress(self, where: Mapping[str, Any] | Sequence[str]) -> Progress:
        """How far tasks are (a filter, or up to 200 ids): to be drawn, redrawn, or waited for.

        Errors: `usage` for more ids; give the tasks a tag, and ask for it.
        """
        if isinstance(where, Mapping):
            return Progress(self, where)
        if len(where) > PIECE:
            raise BanyanError("usage", f"more than {PIECE} ids: ask for a tag of theirs")
        return Progress(self, {"_id": {"$in": list(where)}})

    def worker_statistics(
        self, *, window: str | None = None, since: str | None = None, buckets: int = 24
    ) -> Document:
        """`capacity`, `reserved` and `used` of all live workers together; what they were, too."""
        over = _over(window, since, buckets)
        return self._body("GET", "/workers/statistics", params=over or None)

    # -----------------------------------------------------------------------------------

    def _create(self, tasks: list[Document]) -> list[Document]:
        body: Any = tasks[0] if len(tasks) == 1 else tasks
        prefer = "return=minimal" if len(tasks) > 1 else None
        answer = self.transport.ask("POST", "/tasks", json=body, prefer=prefer, repeatable=True)
        if answer.status == 409 and answer.repeats:
            stored = self._stored(tasks)
            if stored is not None:
                return stored
        if answer.status >= 300:
            raise error_of(answer.status, answer.body, answer.headers)
        return [answer.body] if len(tasks) == 1 else list(answer.body["_items"])

    def _stored(self, tasks: list[Document]) -> list[Document] | None:
        """What an earlier sending of the same request has stored; None unless it is all."""
        by_id: dict[str, Document] = {}
        for piece in in_pieces([task["_id"] for task in tasks if "_id" in task]):
            stored = self.find({"_id": {"$in": piece}}, limit=len(piece))
            by_id.update((found["_id"], found) for found in stored)
        for task in tasks:
            found = by_id.get(task.get("_id", ""))
            if found is None or found.get("command") != task.get("command"):
                return None
        return [by_id[task["_id"]] for task in tasks]

    def _body(self, method: str, path: str, **options: Unpack[Options]) -> Document:
        body = self.transport.request(method, path, **options).body
        return cast(Document, body)


def _over(window: str | None, since: str | None, buckets: int) -> Document:
    """The arguments that ask for what was over time; none where that is not asked for."""
    asked = {"window": window, "from": since, "buckets": buckets}
    return {name: value for name, value in asked.items() if value} if window or since else {}
