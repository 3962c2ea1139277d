"""`banyan progress N` and `banyan result JSON`: what a running task says of itself.

`banyan result --of PARENT` prints what a task before it gave back. They work inside a task only,
with what its worker has put into its environment. Where that has no server (`banyan worker
--standalone`), progress is a line of the task's output, and the result a file. Without a number,
`banyan progress` shows how far other tasks are (see `banyan.cli.progress`).
"""

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.client.api import Client
from banyan.errors import BanyanError
from banyan.profiles import TASK

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_ID = re.compile(r"[0-9a-fA-F]{24}")
_MESSAGE_LENGTH_MAX = 256


def is_number(text: str) -> bool:
    """Whether this is how far something is, and not the id of a task."""
    return _NUMBER.fullmatch(text) is not None


def _or_alone(tell: Callable[..., None]) -> Callable[..., Any]:
    """`tell` takes the place of the command in a task that has no server."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def either(**options: Any) -> Any:
            alone = os.environ.get("BANYAN_TASK_ID") and os.environ.get("BANYAN_URL") == ""
            return tell(**options) if alone and not options["url"] else command(**options)

        return either

    return decorate


def _say_progress(done: str, message: tuple[str, ...], total: str | None, **_: Any) -> None:
    told = _progress(done, message, total)
    of = f"/{told['total']}" if "total" in told else ""
    words = " ".join(str(told.get("message", "")).split())
    click.echo(f"::progress {told['done']}{of} {words}".rstrip())


def _keep_result(value: str | None, parent: str | None, **_: Any) -> None:
    if value is None or parent is not None:
        raise BanyanError("usage", "without a server a task reads no results of others")
    file = Path(os.environ["BANYAN_RESULT_FILE"])
    told = json.dumps(_result(value)) + "\n"
    if file.exists() and not os.access(file.parent, os.W_OK):
        file.write_text(told)  # made for this task, as which another user has no other (--run-as)
        return
    new = file.with_name(f"{file.name}.new")
    new.write_text(told)
    new.replace(file)


@click.command("progress")
@_or_alone(_say_progress)
@with_client(TASK)
@click.argument("done", metavar="DONE")
@click.argument("message", nargs=-1, metavar="[MESSAGE]...")
@click.option("--of", "total", metavar="TOTAL", help="What DONE will be at the end.")
def tell_progress_command(
    client: Client, done: str, message: tuple[str, ...], total: str | None
) -> None:
    """Tells, from inside a task, how far it is.

    \b
    Example:
      banyan progress 40 --of 100 "epoch 4"
    """
    _tell(client, "progress", _progress(done, message, total))


@click.command("result")
@_or_alone(_keep_result)
@with_client(TASK)
@click.argument("value", metavar="[JSON]", required=False)
@click.option("--of", "parent", metavar="ID", help="Print what a parent of it gave back, as JSON.")
def result_command(client: Client, value: str | None, parent: str | None) -> None:
    """Tells, from inside a task, what it gives back; '-' reads it from standard input.

    It stands in 'banyan show' and 'banyan ls' at once; the last one stays. 'banyan results' has
    those of many tasks. With --of it prints the result of a task that this one waited for, whose
    whole id it names.

    \b
    Example:
      banyan result '{"loss": 0.1}'
      banyan result --of 6b0b0aa517ae8e41c0f44262
    """
    if (value is None) == (parent is None):
        raise BanyanError("usage", "give either JSON, or --of with the id of a parent")
    if parent is not None:
        click.echo(json.dumps(_result_of(client, parent)))
    elif value is not None:
        _tell(client, "result", _result(value))


def _progress(done: str, message: tuple[str, ...], total: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {"done": _number(done, "DONE")}
    if total is not None:
        told["total"] = _number(total, "--of")
    if message:
        told["message"] = " ".join(message)[:_MESSAGE_LENGTH_MAX]
    return told


def _result(value: str) -> Any:
    try:
        result = json.loads(sys.stdin.read() if value == "-" else value)
    except ValueError as problem:
        raise BanyanError("usage", f"this is no JSON: {problem}") from None
    if result is None:
        raise BanyanError("usage", "null is no result: leave the command out")
    return result


def _result_of(client: Client, parent: str) -> Any:
    if not _ID.fullmatch(parent):
        raise BanyanError("usage", f"--of {parent!r}: the whole id of a task, 24 hex digits")
    return client.transport.request("GET", f"/tasks/{parent}/result").body["result"]


def _tell(client: Client, name: str, value: Any) -> None:
    task = os.environ["BANYAN_TASK_ID"]
    client.transport.request("POST", f"/tasks/{task}/{name}", json=value, repeatable=True)


def _number(text: str, name: str) -> int | float:
    if not is_number(text):
        raise BanyanError("usage", f"{name} {text!r} is no number, 0 or more")
    return float(text) if "." in text else int(text)
