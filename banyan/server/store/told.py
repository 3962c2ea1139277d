"""Versions of tasks that this process tells its own waiters of: its watcher passes them over.

Stamped by claims, reports and submissions, most of all that is written. Each change that the
watcher hears of costs the database and this process as much as a read, and wakes once more
whoever was woken before. Who stamps must tell; where nobody knows whether a write was made,
`disown` lets the watcher hear of it.
"""

import secrets

from banyan.server.store.mongo import new_etag

# Where an ObjectId has what its process has drawn: no other version has this mark there.
_PLACE = slice(8, 18)


class _Process:
    """What stands in that place now."""

    mark = secrets.token_hex(5)


def told_etag() -> str:
    """As `new_etag`, for a task whose waiters this process wakes."""
    etag = new_etag()
    return etag[: _PLACE.start] + _Process.mark + etag[_PLACE.stop :]


def is_of_this_process(etag: str | None) -> bool:
    """Whether this process has stamped a document with this version, in either way, lately."""
    return etag is not None and etag[_PLACE] in (_Process.mark, new_etag()[_PLACE])


def pattern() -> str:
    """The regular expression that those of now match, and nothing else."""
    return f"^.{{{_PLACE.start}}}{_Process.mark}"


def disown() -> None:
    """What was stamped until now is to be heard of after all: a write of it may come late."""
    _Process.mark = secrets.token_hex(5)
