"""The first accounts of a database, and the file with their tokens.

Called before servers start, by whoever has the data directory. Keeps tokens that still
work, so that starting again changes nothing for those who use them.
"""

import json
from pathlib import Path

from pymongo.errors import DuplicateKeyError

from banyan import ownership
from banyan.server.store import accounts
from banyan.server.store.mongo import Store

WORKER_FILE = "worker.token"
ROLES = ("admin", "provider", "worker")


def ensure_credentials(mongo_uri: str, path: Path) -> None:
    """See to it that `path` holds {"admin", "provider", "worker"} tokens that work (mode 0600)."""
    store = Store(mongo_uri)
    try:
        kept = _read(path)
        tokens = {role: _working(store, role, kept.get(role)) for role in ROLES}
        if tokens != kept:
            ownership.replace_text(path, json.dumps(tokens))
    finally:
        store.close()


def keep_worker_token(credentials: Path) -> Path:
    """A file beside the credentials with the worker's token alone (mode 0600); its name."""
    token = json.loads(credentials.read_text())["worker"]
    path = credentials.with_name(WORKER_FILE)
    ownership.replace_text(path, f"{token}\n")
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
        kept = json.loads(ownership.read_text(path))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
