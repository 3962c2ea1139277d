"""What the Tab key offers where tasks, workers or queues are named: those that the server has.

Called by the shell through click, as `shell_complete` of arguments and options. It must never
keep a person waiting, and never say anything but what may be written there: where the server is
slow, away or refuses, nothing is offered.

Others name tasks and hosts, and the shell puts what is offered into the line as it stands: bash
would run a `$(...)` in it at Enter. So only words are offered that mean themselves in any shell.
"""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from banyan.printable import harmless

PATIENCE_SECONDS = 0.3  # longer than that, nobody takes it for completion
_OFFERED_MAX = 50
# Nothing that bash, zsh or fish expands, splits at or quotes with; a first "-" would be an option,
# and fish's own script cuts at ",". "+", "/" and "=" are common in names and mean nothing there.
_PLAIN = re.compile(r"@?[A-Za-z0-9_.:][A-Za-z0-9_.:@+/=-]*")
_OPEN = {"state": {"$nin": ["terminated", "cancelled"]}}
_ENDED = {"state": {"$in": ["terminated", "cancelled"]}}
# What a command can do something with; the others take any task.
_OF_COMMAND: dict[str, dict[str, Any]] = {
    "cancel": _OPEN,
    "wait": _OPEN,
    "progress": _OPEN,
    "release": {"state": "inactive"},
    "set": {"state": {"$in": ["inactive", "available"]}},
    "retry": _ENDED,
    "forget": _ENDED,
}


def complete_tasks(
    context: click.Context, option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """`last`, `@name` and the ids of the newest tasks, with what they are."""
    if begun.startswith("@"):
        return _offered([CompletionItem(f"@{name}") for name in _names(context)], begun)
    last = [CompletionItem("last", help="the newest of yours")] if "last".startswith(begun) else []
    found = _asked(context, lambda client: list(_tasks(client, context, begun)))
    return [*last, *_offered(found, begun)]


def _tasks(client: Any, context: click.Context, begun: str) -> Iterable[CompletionItem]:
    if any(digit not in "0123456789abcdef" for digit in begun):
        return
    where = dict(_OF_COMMAND.get(context.info_name or "", {}))
    if begun:
        where["_id"] = {"$gte": begun.ljust(24, "0")[:24], "$lte": begun.ljust(24, "f")[:24]}
    wanted = {"name": 1, "state": 1, "outcome": 1}
    for task in client.find(where, sort="-_id", projection=wanted, limit=_OFFERED_MAX):
        told = (task.get("name") or "", task.get("outcome") or task["state"])
        yield CompletionItem(task["_id"], help=" ".join(filter(None, told)))


def _names(context: click.Context) -> list[str]:
    def ask(client: Any) -> list[str]:
        found = client.find({}, sort="-_id", projection={"name": 1}, limit=1000)
        return [task["name"] for task in found if task.get("name")]

    return list(dict.fromkeys(_asked(context, ask)))


def complete_workers(
    context: click.Context, option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """The hosts of workers and their ids."""

    def ask(client: Any) -> list[CompletionItem]:
        every = client.workers()
        hosts = [CompletionItem(one["host"], help=one["mode"]) for one in every]
        return hosts + [CompletionItem(one["_id"], help=one["host"]) for one in every]

    return _offered(_asked(context, ask), begun)


def complete_queue(
    context: click.Context, option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """The queues that have tasks or workers."""

    def ask(client: Any) -> list[str]:
        served = client.worker_statistics()["by_queue"]
        return sorted({*served, *client.statistics(by=["queue"])["by_queue"]})

    return _offered([CompletionItem(queue) for queue in _asked(context, ask)], begun)


def _offered(found: Iterable[CompletionItem], begun: str) -> list[CompletionItem]:
    """What goes on as it was begun and may stand in a line; the rest is to be typed in quotes.

    What is said beside a word stays on its line: zsh takes the next line for another word.
    """
    return [
        CompletionItem(one.value, help=one.help and harmless(one.help))
        for one in found
        if one.value.startswith(begun) and _PLAIN.fullmatch(one.value)
    ]


def _asked(context: click.Context, ask: Callable[[Any], list[Any]]) -> list[Any]:
    """What the server tells in time; nothing otherwise."""
    from banyan.client.api import Client  # what it costs to load is not the server's fault

    found: list[Any] = []

    def work() -> None:
        try:
            with _client(Client, context) as client:
                found.extend(ask(client))
        except Exception:
            found.clear()  # whatever it is: a completion is no place to speak of it

    # A daemon: the process ends with what it has, also while the thread still waits.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return [] if thread.is_alive() else found


def _client(kind: Callable[..., Any], context: click.Context) -> Any:
    from banyan.cli.connection import read_token_file

    given = context.params
    token, file = given.get("token"), given.get("token_file")
    if file not in (None, "-"):
        token = read_token_file(file, "provider", quiet=True)
    return kind(given.get("url"), token, profile=given.get("profile"), retry_seconds=0)
