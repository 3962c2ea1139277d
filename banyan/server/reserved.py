"""What workers have reserved: the sum of what their attempts were granted, never stored.

With what processes of ended attempts keep, as their last beat says.
"""

from collections.abc import Sequence

from banyan.domain.tallies import RESOURCES
from banyan.server.store import tasks
from banyan.server.store.mongo import Document, Store


def fill(store: Store, resource: str, items: Sequence[Document], fields: Sequence[str]) -> None:
    """Put `reserved` into workers that are about to be shown, a page with one query."""
    if resource != "workers" or "reserved" not in fields:
        return
    nothing = dict.fromkeys(RESOURCES, 0)
    found = tasks.reserved_by(store, [item["_id"] for item in items])
    for item in items:
        reserved = found.get(item["_id"], nothing)
        stuck = item.get("used", {}).get("stuck", {})
        item["reserved"] = {name: reserved[name] + stuck.get(name, 0) for name in RESOURCES}
