"""Every index is there: without one, a queue of a million tasks stands still."""

from collections.abc import Iterator

from banyan.server.doctor.finding import Finding
from banyan.server.store import inspection
from banyan.server.store.mongo import Store

CHECK = "indexes"


def check(store: Store) -> Iterator[Finding]:
    """Findings of the check `indexes`."""
    for name in inspection.missing_indexes(store):
        advice = "start a server of this version: it makes what is missing"
        yield Finding(CHECK, name, "the index is missing", advice)
