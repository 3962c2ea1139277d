"""Transactions whose server was killed: MongoDB would keep what they hold for a minute.

Called by upkeep, in every server process. It must never end a transaction that still does
something: only one that has stood idle from one look to the next.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from pymongo.errors import OperationFailure

from banyan.server.store.mongo import Store

Idle = Mapping[Any, tuple[int, int]]  # session -> which transaction, how long it has worked


def end(store: Store, before: Idle) -> Idle:
    """End the transactions that have done nothing since `before`; returns who is idle now.

    A server that was only slow runs its transaction again.
    """
    now: dict[Any, tuple[int, int]] = {}
    # Some hosted databases let nobody look; there the minute must be waited out.
    with contextlib.suppress(OperationFailure):
        for one in store.client.admin.aggregate([{"$currentOp": {"idleSessions": True}}, _OPEN]):
            if one.get("appName") == store.application:
                transaction = one["transaction"]
                number = transaction["parameters"]["txnNumber"]
                now[one["lsid"]["id"]] = number, transaction["timeActiveMicros"]
        dead = [{"id": session} for session, seen in now.items() if before.get(session) == seen]
        if dead:
            store.client.admin.command("killSessions", dead)
    return now


_OPEN = {"$match": {"type": "idleSession", "transaction.parameters.txnNumber": {"$exists": True}}}
