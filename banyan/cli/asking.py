"""Asks before more than one thing is undone at once. Called by what cancels and removes."""

import sys

import click

from banyan.errors import BanyanError

yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def assured(question: str, count: int, yes: bool) -> None:
    """Returns where it may be done. Errors: `usage` where nobody can be asked; Abort for no."""
    if count < 2 or yes:
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise BanyanError("usage", f"{question} That is more than one: say so with --yes")
    click.confirm(question, abort=True, err=True)
