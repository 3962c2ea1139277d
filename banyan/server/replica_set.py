"""The replica set of one member that the private MongoDB is: made, moved, waited for.

Called by `banyan.server.embedded` alone, with the members' own credentials; nothing else
may use those, because they may do everything.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from banyan.errors import BanyanError
from banyan.server.mongo_home import SOCKET

SET = "banyan"
USER = "banyan"
# How it knows itself: seen from its own directory, so that it stays right when that is moved.
HOST = f"./{SOCKET}"

ROLES = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"]
_POLL_SECONDS = 0.02
_NOT_YET_INITIALIZED = 94
_AUTHENTICATION_FAILED = 18

Client = MongoClient[dict[str, Any]]


def address(socket: str) -> str:
    """A unix socket as the host of a MongoDB address."""
    return quote(socket, safe="")


def make_primary(socket: str, key: str, password: str, alive: Callable[[], bool]) -> bool:
    """Whether the member at this socket takes writes, and has its user, as long as it is `alive`.

    key:      the content of the set's key file.
    password: of the user `USER`, whom the server is.
    Errors: `usage` where it has other users.
    """
    with member(socket, key) as client:
        while not _is_primary(client):
            if not alive():
                return False
            time.sleep(_POLL_SECONDS)
    # A driver that saw the member outside its set would refuse sessions: ask anew.
    with member(socket, key) as client:
        _ensure_user(client, socket, password)
    return True


def member(socket: str, key: str) -> Client:
    """A connection with all rights."""
    return _connect(socket, "__system", key, "local")


def answers(socket: str, seconds: float) -> bool:
    """Whether it says anything within this time; one that is ending lets callers wait."""
    wait = int(seconds * 1000)
    with (
        MongoClient[dict[str, Any]](
            f"mongodb://{address(socket)}",
            directConnection=True,
            serverSelectionTimeoutMS=wait,
            connectTimeoutMS=wait,
            socketTimeoutMS=wait,
        ) as client,
        contextlib.suppress(PyMongoError),
    ):
        client.admin.command("hello")
        return True
    return False


def _connect(socket: str, user: str, password: str, source: str) -> Client:
    return MongoClient(
        f"mongodb://{address(socket)}",
        directConnection=True,
        username=user,
        password=password,
        authSource=source,
        serverSelectionTimeoutMS=10_000,
    )


def _is_primary(client: Client) -> bool:
    """Whether it takes writes; where its set does not know it (yet), tell the set."""
    # On its way up it refuses what it does a moment later, and drops connections.
    with contextlib.suppress(OperationFailure, AutoReconnect):
        hello = client.admin.command("hello")
        if "setName" not in hello:
            _configure(client)
        return bool(hello.get("isWritablePrimary"))
    return False


def _configure(client: Client) -> None:
    """Make a set of this one member, or tell an existing set that its member has moved.

    It has moved where an earlier version of Banyan has made the set, on a port of TCP. That is
    not mended by a start outside of the set: it would leave out what a killed member has in its
    oplog alone.
    """
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        members = [{"_id": 0, "host": HOST}]
        client.admin.command("replSetInitiate", {"_id": SET, "members": members})
        return
    config["members"][0]["host"] = HOST
    config["version"] += 1
    # By force: a member that no longer finds itself in its set can't vote for a change.
    client.admin.command("replSetReconfig", config, force=True)


def _ensure_user(client: Client, socket: str, password: str) -> None:
    """The server's own user: all databases' data, nothing of the set's management; no other."""
    users = client.admin.command("usersInfo", {"forAllDBs": True})["users"]
    ours = [one for one in users if one["_id"] == f"admin.{USER}"]
    strangers = sorted(one["_id"] for one in users if one not in ours)
    if strangers:
        raise BanyanError(
            "usage",
            f"the private MongoDB has users that Banyan has not made: {', '.join(strangers)}. "
            "Whoever made them could read and change everything, commands of tasks and tokens "
            'included: put back a backup of before, or see "Unknown users" in '
            "docs/operations.md",
        )
    if not ours:
        client.admin.command("createUser", USER, pwd=password, roles=ROLES)
    elif not _is_password(socket, password):  # the key is a new one
        client.admin.command("updateUser", USER, pwd=password)
    if ours and {one["role"] for one in ours[0]["roles"]} != set(ROLES):
        client.admin.command("updateUser", USER, roles=ROLES)


def _is_password(socket: str, password: str) -> bool:
    with _connect(socket, USER, password, "admin") as client:
        try:
            client.admin.command("ping")
        except OperationFailure as error:
            if error.code != _AUTHENTICATION_FAILED:
                raise
            return False
    return True
