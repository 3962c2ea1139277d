"""Accounts and their tokens; a token is shown once, in the answer that makes it."""

from flask import current_app
from pymongo.errors import DuplicateKeyError

from banyan.errors import BanyanError
from banyan.server import represent, scoped, validation
from banyan.server.calls import Answer, Call
from banyan.server.schemas.accounts import ISSUE, SCHEMA
from banyan.server.schemas.answers import NOTHING
from banyan.server.store import accounts, holdings
from banyan.server.verbs import workers

_COUNTED_MAX = 1_000_000  # of the open tasks of an account


def create(call: Call) -> Answer:
    """POST /accounts {"name", "roles", "queues", "expires"}: 201 with `token`."""
    body = validation.demand(SCHEMA, call.body)
    if "queues" in body and "worker" not in body["roles"]:
        issues = {"queues": "only an account with the role worker has queues to serve"}
        raise BanyanError("invalid", "see _issues", issues)
    try:
        account = accounts.insert(call.store, body["name"], body["roles"], body.get("queues"))
    except DuplicateKeyError:
        message = f"there is an account {body['name']!r} already; use its action `issue`"
        raise BanyanError("already_exists", message) from None
    token = accounts.issue(call.store, account, body.get("expires"))
    return Answer({**represent.account(call, account), "token": token, "_status": "OK"}, 201)


def issue(call: Call) -> Answer:
    """POST /accounts/<id>/issue {"expires"}: one more token; the account is in use again."""
    body = validation.demand(ISSUE, {} if call.body is None else call.body)
    account = scoped.item(call)
    accounts.set_revoked(call.store, account["_id"], revoked=False)
    token = accounts.issue(call.store, account, body.get("expires"))
    if scoped.item(call, ["revoked"])["revoked"]:  # by somebody who may not have seen the token
        accounts.revoke_tokens(call.store, account["name"])
        raise BanyanError("conflict", "the account was revoked meanwhile; issue again, if it shall")
    return Answer({"name": account["name"], "token": token, "_status": "OK"}, 201)


def tokens(call: Call) -> Answer:
    """GET /accounts/<id>/tokens: since when, until when, and when they were used last."""
    account = scoped.item(call)
    return Answer({"_items": accounts.tokens_of(call.store, account["name"])})


def revoke(call: Call) -> Answer:
    """POST /accounts/<id>/revoke: all its tokens are worth nothing from now on.

    Nor are those of the attempts that its tasks or its workers hold (see `auth`). Its workers are
    removed, and what they hold is given back. Its tasks stay: `open_task_count` tells how many
    have not ended.
    """
    validation.demand(NOTHING, {} if call.body is None else call.body)
    account = scoped.item(call)
    # Noted first: whoever issues a token at this time sees it then, or the token goes with all.
    revoked = accounts.set_revoked(call.store, account["_id"], revoked=True)
    accounts.revoke_tokens(call.store, account["name"])
    current_app.extensions["banyan"].authenticator.forget()
    workers.remove_of(call.context, account["name"])
    count = holdings.open_tasks(call.store, account["name"], _COUNTED_MAX)
    shown = represent.account(call, revoked or account)
    return Answer({**shown, "open_task_count": count, "_status": "OK"})
