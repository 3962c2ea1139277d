"""Accounts, their tokens, and the secret from which attempt tokens are made.

Tokens are 256 random bits; only their hash is kept, in a collection that the API never
serves. An attempt's token is not kept at all: it is made from the attempt's id.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument

from banyan.server.store.mongo import Document, Store, new_etag, now

LAST_USE_EVERY = timedelta(minutes=1)
_NO_HASH = "0" * 64


def insert(
    store: Store, name: str, roles: Sequence[str], queues: Sequence[str] | None = None
) -> Document:
    """Store a new account. Errors: DuplicateKeyError where the name is taken.

    queues: those that its workers may serve; None: all.
    """
    time = now()
    account = {
        "_id": ObjectId(),
        "name": name,
        "roles": list(roles),
        **({} if queues is None else {"queues": list(queues)}),
        "revoked": False,
        "_created": time,
        "_updated": time,
        "_etag": new_etag(),
    }
    store["accounts"].insert_one(account)
    return account


def by_name(store: Store, name: str) -> Document | None:
    """The account of that name."""
    return store["accounts"].find_one({"name": name})


def is_revoked(store: Store, name: str) -> bool:
    """Whether the account was revoked, and has got no token since."""
    return store["accounts"].find_one({"name": name, "revoked": True}, ["_id"]) is not None


def issue(store: Store, account: Mapping[str, Any], expires: datetime | None = None) -> str:
    """Make a token for the account; this is the only time that it is seen."""
    public_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    store["tokens"].insert_one(
        {
            "_id": public_id,
            "hash": _hash(secret),
            "account": account["name"],
            "roles": list(account["roles"]),
            "queues": account.get("queues"),
            "created": now(),
            "expires": expires,
            "last_use": None,
        }
    )
    return f"bny_{public_id}_{secret}"


def find_token(store: Store, token: str) -> Document | None:
    """What a token stands for, if it is valid now; compared in constant time."""
    kind, _, rest = token.partition("_")
    public_id, _, secret = rest.partition("_")
    if kind != "bny" or not public_id or not secret:
        return None
    found = store["tokens"].find_one({"_id": public_id})
    kept = found["hash"] if found else _NO_HASH  # an id that nobody has takes as long
    if not secrets.compare_digest(kept, _hash(secret)) or not found:
        return None
    time = now()
    if found["expires"] and found["expires"] <= time:
        return None
    if not found["last_use"] or time - found["last_use"] > LAST_USE_EVERY:
        store["tokens"].update_one({"_id": public_id}, {"$set": {"last_use": time}})
    return found


def names(store: Store, most: int) -> list[str]:
    """Of so many accounts, in their order."""
    found = store["accounts"].find({}, {"name": 1, "_id": 0}).sort("name", 1).limit(most)
    return [one["name"] for one in found]


def all_tokens(store: Store) -> frozenset[str]:
    """All tokens that are stored, as `as_stored` says them."""
    found = store["tokens"].find({}, ["hash"])
    return frozenset(f"{one['_id']}_{one['hash']}" for one in found)


def as_stored(token: str) -> str:
    """A token without its secret: its public id, and the hash."""
    public_id, _, secret = token.partition("_")[2].partition("_")
    return f"{public_id}_{_hash(secret)}"


def tokens_of(store: Store, name: str) -> list[Document]:
    """What may be told of an account's tokens: nothing with which one could get in."""
    told = ["created", "expires", "last_use"]
    return list(store["tokens"].find({"account": name}, told).sort("created", 1))


def revoke_tokens(store: Store, name: str) -> None:
    """Take all tokens of an account away."""
    store["tokens"].delete_many({"account": name})


def set_revoked(store: Store, account_id: ObjectId, revoked: bool) -> Document | None:
    """Note whether the account has any token left to use; the account as it is then."""
    return store["accounts"].find_one_and_update(
        {"_id": account_id},
        {"$set": {"revoked": revoked, "_etag": new_etag(), "_updated": now()}},
        return_document=ReturnDocument.AFTER,
    )


def attempt_secret(store: Store) -> bytes:
    """The key of this database's attempt tokens, made once by whoever is first."""
    found = store["secrets"].find_one_and_update(
        {"_id": "attempts"},
        {"$setOnInsert": {"key": secrets.token_bytes(32)}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    return bytes(found["key"]) if found else attempt_secret(store)


def _hash(secret: str) -> str:
    # 256 random bits can't be guessed: a fast hash is as good as a slow one here.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
