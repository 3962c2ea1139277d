"""No record of an attempt and no output without its task."""

from collections.abc import Iterator

from banyan.server.doctor.finding import Finding
from banyan.server.store import inspection
from banyan.server.store.mongo import Store

CHECK = "orphans"
REMOVE = "remove"
_ADVICE = "they take room, and nothing else; `--repair` removes them"
_NAMES = {"attempts": "the record of an attempt", "log_chunks": "output of an attempt"}


def check(store: Store) -> Iterator[Finding]:
    """Findings of the check `orphans`."""
    for collection, name in _NAMES.items():
        for attempt, task in inspection.ownerless(store, collection):
            message = f"{name} is there ({attempt}), and its task is not"
            yield Finding(CHECK, str(task), message, _ADVICE, REMOVE, str(attempt))
