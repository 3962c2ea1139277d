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

from banyan.client.failures import error_of
from banyan.client.graph import BULK_ITEMS, in_requests, parents_first, prepared
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
    def submit(self, tasks: Mapping[str, Any], *, hold: bool = ...) -> Document: ...
    @overload
    def submit(self, tasks: Sequence[Mapping[str, Any]], *, hold: bool = ...) -> list[Document]: ...
    def submit(
        self, tasks: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, hold: bool = False
    ) -> Document | list[Document]:
        """Creates one task, or a list with edges between its tasks; any length, in order.

        A list of up to 1,000 with up to 100,000 edges is stored as a whole or not at all; a
        longer one is sent in pieces, parents first. Fields: those of `POST /tasks`; `_id` and
        `state` are added where they are missing. A task may have any number of parents: more
        than 1,024 of a kind are gathered by groups, tasks without a command that are added.
        hold: create them inactive.
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

    def release(self, ids: Iterable[str]) -> None:
        """Lets held (inactive) tasks go. Errors: of the first that could not be released."""
        items = [{"_id": id, "state": "available"} for id in ids]
        for start in range(0, len(items), BULK_ITEMS):
            piece = items[start : start + BULK_ITEMS]
            answer = self.transport.request("PATCH", "/tasks", json=piece, repeatable=True)
            for item in answer.body["_items"]:
                if item["_status"] != "OK":
                    raise error_of(422, item)

    def cancel(self, ids: Iterable[str]) -> None:
        """Cancels tasks; those that have ended stay as they are."""
        for path, body in _targets("cancel", ids):
            self.transport.request("POST", path, json=body, repeatable=True)

    def retry(self, ids: Iterable[str], *, downstream: bool = False) -> None:
        """Gives ended tasks one more attempt.

        downstream: what was cancelled because of them waits for them again.
        """
        # Not repeatable: the attempt that a lost answer told of may have failed meanwhile.
        for path, body in _targets("retry", ids):
            self.transport.request("POST", path, json={**body, "downstream": downstream})

    def forget(self, ids: Iterable[str]) -> None:
        """Removes ended tasks for good, with their attempts and output.

        Errors: `illegal_transition` where one has not ended, or hangs together with one that
        has not; of the (up to 1,000) tasks of that request none is removed then.
        """
        # As a list also for one: that it is gone, if an answer was lost, is no error there.
        for _, body in _targets("forget", ids, always_list=True):
            self.transport.request("POST", "/tasks/forget", json=body, repeatable=True)

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
        buckets: int = 24,
    ) -> Document:
        """`count`, `by_state` and the like of tasks that match.

        by:     state, outcome, queue, owner, name, or a tag as in tags.sweep.
        window: a duration like "24 hours": what was since then, too: `ended`,
                `waiting_milliseconds`, `running_milliseconds`, and `buckets` of it.
        """
        params = {"by": ",".join(by), **({"where": where} if where else {})}
        over = {"window": window, "buckets": buckets} if window else {}
        return self._body("GET", "/tasks/statistics", params={**params, **over})

    def progress(self, where: Mapping[str, Any] | Sequence[str]) -> Progress:
        """How far tasks are (a filter, or up to 200 ids): to be drawn, redrawn, or waited for.

        Errors: `usage` for more ids; give the tasks a tag, and ask for it.
        """
        if isinstance(where, Mapping):
            return Progress(self, where)
        if len(where) > PIECE:
            raise BanyanError("usage", f"more than {PIECE} ids: ask for a tag of theirs")
        return Progress(self, {"_id": {"$in": list(where)}})

    def worker_statistics(self, *, window: str | None = None, buckets: int = 24) -> Document:
        """`capacity`, `reserved` and `used` of all live workers together; what they were, too."""
        params = {"window": window, "buckets": buckets} if window else None
        return self._body("GET", "/workers/statistics", params=params)

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


def _targets(
    action: str, ids: Iterable[str], always_list: bool = False
) -> Iterator[tuple[str, Document]]:
    """The requests for an action on tasks: path and body."""
    targets = list(ids)
    if len(targets) == 1 and not always_list:
        yield f"/tasks/{targets[0]}/{action}", {}
        return
    for start in range(0, len(targets), BULK_ITEMS):
        yield f"/tasks/{action}", {"targets": targets[start : start + BULK_ITEMS]}
