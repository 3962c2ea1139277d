"""`banyan stats`: how many tasks there are, how long they take, how busy the workers are."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.output import as_json, print_json, print_table
from banyan.cli.selecting import filters, select
from banyan.client.api import Client
from banyan.domain.units import format_bytes, format_duration

_SPARKS = "▁▂▃▄▅▆▇█"


@click.command("stats")
@with_client()
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--queue", help="Only of this queue.")
@click.option("--tag", multiple=True, metavar="KEY=VALUE", help="Only with this tag.")
@click.option("--by", default="state,outcome,queue", show_default=True, help="What to count by.")
@as_json
def stats_command(
    client: Client,
    tasks: tuple[str, ...],
    queue: str | None,
    tag: tuple[str, ...],
    by: str,
    as_json: bool,
) -> None:
    """How many tasks, how long they took, and how busy the workers are.

    \b
    Example:
      banyan stats --tag sweep=7 --by state,outcome
    """
    like = filters(None, None, queue, tag)
    where = select(client, tasks, like).where if tasks or like else None
    counted, workers = client.statistics(where, by.split(",")), client.worker_statistics()
    if as_json:
        print_json({"tasks": counted, "workers": workers})
        return
    counts = [
        (name.removeprefix("by_").upper(), value, str(count))
        for name, values in counted.items()
        if name.startswith("by_") and isinstance(values, dict)
        for value, count in sorted(values.items())
    ]
    print_table(("BY", "VALUE", "TASKS"), [*counts, ("ALL", "", str(counted["count"]))])
    _print_times(counted)
    _print_buckets(counted)
    _print_workers(workers)


def sparkline(values: Sequence[float]) -> str:
    """One character a value, the highest as tall as there is room."""
    top = max(values, default=0)
    if top <= 0:
        return _SPARKS[0] * len(values)
    return "".join(_SPARKS[round(value / top * (len(_SPARKS) - 1))] for value in values)


def _print_times(counted: Mapping[str, Any]) -> None:
    rows = [
        (name.removesuffix("_milliseconds"), *(_duration(times.get(one)) for one in _MEASURES))
        for name, times in counted.items()
        if name.endswith("_milliseconds") and isinstance(times, dict)
    ]
    if rows:
        click.echo()
        print_table(("TIME", *(name.upper() for name in _MEASURES)), rows)


_MEASURES = ("mean", "p50", "p90", "p99", "max")


def _duration(milliseconds: float | None) -> str:
    return "" if milliseconds is None else format_duration(round(milliseconds))


def _print_buckets(counted: Mapping[str, Any]) -> None:
    """What is told over time, drawn."""
    buckets = counted.get("buckets") or []
    numbers = {
        name
        for bucket in buckets
        for name, value in bucket.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    for name in sorted(numbers):
        values = [bucket.get(name) or 0 for bucket in buckets]
        click.echo(f"{name:<24} {sparkline(values)} {max(values):g} at most")


def _print_workers(workers: Mapping[str, Any]) -> None:
    shown = {"cores": "{:g}".format, "memory_bytes": format_bytes, "gpu_count": "{:g}".format}
    rows = [
        (name.split("_")[0], *(write(workers.get(part, {}).get(name, 0)) for part in _PARTS))
        for name, write in shown.items()
    ]
    click.echo()
    click.echo(f"{workers['count']} workers run {workers['running']} tasks")
    print_table(("RESOURCE", *(part.upper() for part in _PARTS)), rows)


_PARTS = ("used", "reserved", "capacity")
