"""The replica set of one member that the private MongoDB is: made, moved, waited for.

Called by `banyan.server.embedded` alone, with the members' own credentials; nothing else
may use those, because they may do everything.
"""

import contextlib
import time
from typing import Any

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure

SET = "banyan"
USER = "banyan"

ROLES = ["readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor"]
_POLL_SECONDS = 0.02
_NOT_YET_INITIALIZED = 94
_USER_EXISTS = 51003

_Client = MongoClient[dict[str, Any]]


def make_primary(port: int, key: str, password: str, deadline: float) -> bool:
    """Whether the member on this port takes writes, and has its user, by the deadline.

    key:      the content of the set's key file.
    password: of the user `USER`, whom the server is.
    deadline: on the monotonic clock.
    """
    with _member(port, key) as client:
        while not _is_primary(client, port):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
    # A driver that saw the member outside its set would refuse sessions: ask anew.
    with _member(port, key) as client:
        _create_user(client, password)
    return True


def _member(port: int, key: str) -> _Client:
    return MongoClient(
        "127.0.0.1",
        port,
        directConnection=True,
        username="__system",
        password=key,
        authSource="local",
        serverSelectionTimeoutMS=10_000,
    )


def _is_primary(client: _Client, port: int) -> bool:
    """Whether it takes writes; where its set does not know it (yet), tell the set."""
    # On its way up it refuses what it does a moment later, and drops connections.
    with contextlib.suppress(OperationFailure, AutoReconnect):
        hello = client.admin.command("hello")
        if "setName" not in hello:
            _configure(client, f"127.0.0.1:{port}")
        return bool(hello.get("isWritablePrimary"))
    return False


def _configure(client: _Client, host: str) -> None:
    """Make a set of this one member, or tell an existing set that its member has moved."""
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        members = [{"_id": 0, "host": host}]
        client.admin.command("replSetInitiate", {"_id": SET, "members": members})
        return
    config["members"][0]["host"] = host
    config["version"] += 1
    # By force: a member that no longer finds itself in its set can't vote for a change.
    client.admin.command("replSetReconfig", config, force=True)


def _create_user(client: _Client, password: str) -> None:
    """The server's own user: all databases' data, and nothing of the set's management."""
    try:
        client.admin.command("createUser", USER, pwd=password, roles=ROLES)
    except OperationFailure as error:
        if error.code != _USER_EXISTS:
            raise
