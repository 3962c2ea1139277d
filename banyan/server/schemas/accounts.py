"""An account: a name, its roles, the queues of its workers. Its tokens are never served."""

from typing import Any

from banyan.server.schemas.workers import SCHEMA as WORKER

ROLES = ["provider", "worker", "operator", "admin"]

_EXPIRES = {"type": "datetime", "coerce": "time", "nullable": True}

SCHEMA: dict[str, Any] = {
    "name": {"type": "string", "regex": r"[A-Za-z0-9_.@-]{1,128}", "required": True},
    "roles": {
        "type": "list",
        "minlength": 1,
        "allows_duplicates": False,
        "schema": {"type": "string", "allowed": ROLES},
        "required": True,
    },
    # Those that its workers may serve, and whose waiting tasks they see; left out: all.
    "queues": WORKER["queues"],
    "revoked": {"type": "boolean", "readonly": True},
    "expires": _EXPIRES,  # of the token that the account begins with: never stored here
}

ISSUE: dict[str, Any] = {"expires": _EXPIRES}
