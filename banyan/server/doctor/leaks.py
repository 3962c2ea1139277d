"""The MongoDB gives nothing of its memory away to people without a password."""

from collections.abc import Iterator

from banyan.server.doctor.finding import Finding
from banyan.server.leaks import ADVICE, known_leaks
from banyan.server.store import release
from banyan.server.store.mongo import Store

CHECK = "leaks"


def check(store: Store) -> Iterator[Finding]:
    """Findings of the check `leaks`."""
    leaks = release.open_leaks(store)
    if leaks:
        message = f"whoever can connect to it can read its memory ({', '.join(leaks)})"
        yield Finding(CHECK, f"MongoDB {release.version(store)}", message, ADVICE)


def notes(store: Store, private: bool) -> list[str]:
    """What is to be known of a MongoDB with leaks that nobody can use.

    private: it is the one of a data directory, which others can't connect to.
    """
    version = release.version(store)
    leaks = known_leaks(version)
    if not leaks or release.open_leaks(store):
        return []
    closed = "it takes no compressed messages"
    if private:
        closed = f"only you can reach its socket, and {closed}"
    return [f"MongoDB {version} has a known leak ({', '.join(leaks)}), closed here: {closed}"]
