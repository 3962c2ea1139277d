"""How much one owner has, counted in an index; of all but shapes without a look at any document.

Called by `banyan.server.quotas`, which asks seldom. Each counts up to `most` and no further.
"""

from collections.abc import Mapping
from typing import Any

from banyan.domain.states import ENDED, State
from banyan.server.store.mongo import Store
from banyan.server.store.workers import GONE

_OPEN = sorted(str(state) for state in State if state not in ENDED)


def open_tasks(store: Store, owner: str, most: int) -> int:
    """The owner's tasks that have not ended."""
    query = {"owner": owner, "state": {"$in": _OPEN}}
    return _count(store, "tasks", query, "owner_state_id", most)


def stored_tasks(store: Store, owner: str, most: int) -> int:
    """All tasks of the owner."""
    return _count(store, "tasks", {"owner": owner}, "owner_created", most)


def open_shapes(store: Store, owner: str, most: int) -> int:
    """How many different shapes the owner's tasks have that have not ended. It reads them."""
    stages: list[dict[str, Any]] = [
        {"$match": {"owner": owner, "state": {"$in": _OPEN}}},
        {"$group": {"_id": "$shape"}},
        {"$limit": most},
        {"$count": "count"},
    ]
    found = list(store["tasks"].aggregate(stages, hint="owner_state_id"))
    return int(found[0]["count"]) if found else 0


def workers(store: Store, account: str, most: int) -> int:
    """The workers of an account that are neither lost nor removed."""
    query = {"account": account, "mode": {"$nin": GONE}}
    return _count(store, "workers", query, "account", most)


def _count(store: Store, collection: str, query: Mapping[str, Any], index: str, most: int) -> int:
    command = {"count": collection, "query": dict(query), "hint": index, "limit": most}
    return int(store.database.command(command)["n"])
