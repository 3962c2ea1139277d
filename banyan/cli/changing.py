"""`banyan set`: changes tasks that wait: more memory, another priority, on hold."""

from collections.abc import Callable
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.curl import plain
from banyan.cli.new_task import changes, options_named
from banyan.cli.output import say
from banyan.cli.own_words import own_words
from banyan.cli.sections import in_sections
from banyan.cli.selecting import Selection, ids_of, selection_options
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.domain.units import counted
from banyan.errors import BanyanError

_CHANGEABLE = (
    "cores", "memory", "gpus", "disk", "custom", "priority", "not_before", "retries",
    "retry_delay", "timeout", "grace", "retain",
)  # fmt: skip
_WAITING = {"state": {"$in": ["inactive", "available"]}}


def _change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options_named(_CHANGEABLE)(command)
    in_sections(command, {"Changes": (*_CHANGEABLE, "hold")})
    return command


@click.command("set")
@with_client()
@selection_options
@_change_options
@click.option("--hold", is_flag=True, help="Keep it from running until 'banyan release'.")
def set_command(client: Client, chosen: Selection, hold: bool, **given: Any) -> None:
    """Change tasks that have not begun; --retain may also be changed later.

    What has ended gets more memory or time with 'banyan retry'.

    \b
    Example:
      banyan set last --memory 8G --priority high
      banyan set --state available --tag sweep=7 --hold
    """
    fields = changes(given)
    if not fields and not hold:
        raise BanyanError("usage", "what is to change? See 'banyan set --help'")
    if hold:
        _refuse_to_hold_what_waits_for_others(client, chosen)
    if fields.keys() == {"retain"} and not hold:
        tasks = chosen.find(client)
    else:
        tasks = chosen.those(client, _WAITING, "none of them waits to begin")
    if not tasks:
        return
    with own_words(), Working("changing", len(tasks)) as working:
        if hold:  # first, so that none begins in between
            client.change(ids_of(tasks), {"state": "inactive"}, on_piece=working)
        if fields:
            client.change(ids_of(tasks), fields, on_piece=working)
    held = "; let them run with: banyan release" if hold else ""
    say(f"{counted(len(tasks))} changed{held}")


def _refuse_to_hold_what_waits_for_others(client: Client, chosen: Selection) -> None:
    """It is not ready in any case, and runs as soon as it is."""
    waits = {"state": "inactive", "pending_dependency_count": {"$gt": 0}}
    found = plain(client).find({"$and": [chosen.where, waits]}, projection={}, limit=1)
    if one := next(found, None):
        message = f"task {one['_id']} waits for other tasks, and runs when these have ended"
        raise BanyanError("illegal_transition", f"{message}: hold those")
