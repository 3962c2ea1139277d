"""`banyan top`: the workers and what each of them runs."""

import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.ls import command
from banyan.cli.output import age, as_json, column, print_json
from banyan.cli.tables import print_table
from banyan.client.api import Client, Document
from banyan.domain.units import share_of_bytes
from banyan.printable import harmless

_LOOK_SECONDS = 2.0
_HELD = ["running", "pending_cancellation"]
_WANTED = ("name", "command", "state", "worker", "time_started", "_created")
USUAL = {"GPUS": ["0/0"], "QUEUES": ["default"]}  # of workers
_TITLES = ("ID", "HOST", "MODE", "CORES", "MEMORY", "GPUS", "TASKS", "BEAT")


@click.command("top")
@with_client()
@click.option("--once", is_flag=True, help="How it is now, and end; so also in a pipe.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    metavar="N",
    show_default=True,
    help="Tasks to show.",
)
@as_json
def top_command(client: Client, once: bool, limit: int, as_json: bool) -> None:
    """Workers, how full they are, and what they run; live on a terminal, Ctrl-C ends it.

    CORES, MEMORY and GPUS: what tasks hold of what there is.

    \b
    Example:
      banyan top
    """
    if as_json:
        workers, tasks = _look(client)
        print_json({"workers": workers, "tasks": tasks})
    elif once or not sys.stdout.isatty():
        _print(client, limit)
    else:
        _go_on(client, limit)


def _go_on(client: Client, limit: int) -> None:
    try:
        while True:
            # The terminal is cleared at the moment of printing: nothing flickers.
            click.echo("\x1b[H\x1b[J", nl=False)
            _print(client, limit)
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        click.echo()


def _look(client: Client) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    workers = in_order(client.workers())
    tasks = client.find(
        {"state": {"$in": _HELD}}, sort="_id", projection=dict.fromkeys(_WANTED, 1), limit=1000
    )
    return workers, list(tasks)


def _print(client: Client, limit: int) -> None:
    workers, tasks = _look(client)
    held: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        held.setdefault(str(task.get("worker")), []).append(task)
    rows = [worker_row(one, len(held.get(one["_id"], ()))) for one in workers]
    print_table(_TITLES, rows, USUAL, empty="no workers; start one with: banyan worker")
    if not tasks:
        return
    click.echo()
    hosts = {one["_id"]: one.get("host", "") for one in workers}
    rows = [
        (task["_id"], column(task, "name"), hosts.get(str(task.get("worker")), ""),
         column(task, "state"), age(task.get("time_started")), command(task))
        for task in tasks[:limit]
    ]  # fmt: skip
    print_table(("ID", "NAME", "HOST", "STATE", "RUNS", "COMMAND"), rows)
    if len(tasks) > limit:
        click.echo(f"and {len(tasks) - limit:,} more")


def in_order(workers: Iterable[Document]) -> list[Document]:
    """By their hosts, and those that are gone behind the others."""
    return sorted(workers, key=lambda one: (is_gone(one), one.get("host", ""), one["_id"]))


def is_gone(worker: dict[str, Any]) -> bool:
    """Whether nothing is heard of it any more."""
    return worker.get("mode") in ("lost", "off")


def worker_row(worker: dict[str, Any], tasks: int) -> tuple[str, ...]:
    """One worker in a table of them."""
    has, taken = worker.get("resources") or {}, worker.get("reserved") or {}
    return (
        worker["_id"],
        harmless(worker.get("host", "")),
        worker.get("mode", ""),
        f"{taken.get('cores', 0):g}/{has.get('cores', 0):g}",
        share_of_bytes(taken.get("memory_bytes", 0), has.get("memory") or 0),
        f"{taken.get('gpu_count', 0)}/{len(has.get('gpus') or ())}",
        str(tasks),
        f"{age(worker.get('last_beat'))} ago",
    )
