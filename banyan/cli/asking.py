"""Asks before more than one thing is undone at once. Called by what cancels and removes."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from banyan.cli.curl import plain
from banyan.client.api import Client
from banyan.domain.units import counted
from banyan.errors import BanyanError
from banyan.printable import harmless

_OWNERS_NAMED = 5

yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def assured(question: str, count: int, yes: bool) -> None:
    """Returns where it may be done. Errors: `usage` where nobody can be asked; Abort for no."""
    if count < 2 or yes:
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise BanyanError("usage", f"{question} That is more than one: say so with --yes")
    click.confirm(question, abort=True, err=True)


def assured_of_tasks(
    client: Client, tasks: Sequence[Mapping[str, Any]], yes: bool, verb: str, more: str
) -> None:
    """As `assured`; the question says whose the tasks are where they are not all the caller's."""
    if len(tasks) > 1 and not yes:
        many = counted(len(tasks))
        assured(f"{verb} {many}{_whose(client, tasks)}{more}?", len(tasks), yes)


def _whose(client: Client, tasks: Sequence[Mapping[str, Any]]) -> str:
    owners = sorted({str(task["owner"]) for task in tasks if "owner" in task})
    if not owners or owners == [plain(client).account()]:
        return ""
    named = ", ".join(owners[:_OWNERS_NAMED])
    left = len(owners) - _OWNERS_NAMED
    return harmless(f" of {named}" + (f" and {left} others" if left > 0 else ""))
