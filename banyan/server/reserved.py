"""What workers have reserved: the sum of what their attempts were granted, never stored."""

from collections.abc import Sequence

from bson import ObjectId

from banyan.server.store import tasks
from banyan.server.store.mongo import Document, Store


def fill(store: Store, resource: str, items: Sequence[Document], fields: Sequence[str]) -> None:
    """Put `reserved` into workers that are about to be shown, a page with one query."""
    if resource != "workers" or "reserved" not in fields:
        return
    sums: dict[ObjectId, Document] = {
        item["_id"]: {"cores": 0, "memory_bytes": 0, "gpu_count": 0} for item in items
    }
    for task in tasks.held_by(store, list(sums), ["holder"]):
        reserved = sums[task["holder"]["worker"]]
        for name in reserved:
            reserved[name] += task["holder"]["granted"].get(name, 0)
    for item in items:
        item["reserved"] = sums[item["_id"]]
