"""The first accounts of a database, and the file with their tokens.

Called before servers start, by whoever has the data directory. Keeps tokens that still
work, so that starting again changes nothing for those who use them.
"""

import json
import os
from pathlib import Path

from pymongo.errors import DuplicateKeyError

from banyan.server.store import accounts
from banyan.server.store.mongo import Store

ROLES = ("admin", "provider", "worker")


def ensure_credentials(mongo_uri: str, path: Path) -> None:
    """See to it that `path` holds {"admin", "provider", "worker"} tokens that work (mode 0600)."""
    store = Store(mongo_uri)
    try:
        kept = _read(path)
        tokens = {role: _working(store, role, kept.get(role)) for role in ROLES}
        if tokens != kept:
            write_private(path, json.dumps(tokens))
    finally:
        store.close()


def keep_worker_token(credentials: Path) -> Path:
    """A file beside the credentials with the worker's token alone (mode 0600); its name."""
    token = json.loads(credentials.read_text())["worker"]
    path = credentials.with_name("worker.token")
    write_private(path, f"{token}\n")
    return path


def _working(store: Store, role: str, token: str | None) -> str:
    if token and accounts.find_token(store, token):
        return token
    account = accounts.by_name(store, role)
    if account is None:
        try:
            account = accounts.insert(store, role, [role])
        except DuplicateKeyError:
            return _working(store, role, None)  # another process made it just now
    return accounts.issue(store, account)


def _read(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
