"""`banyan stats`: how many tasks there are, how long they take, how busy the workers are."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from banyan.cli.completing import complete_queue, complete_tasks
from banyan.cli.connection import with_client
from banyan.cli.filtering import filters
from banyan.cli.output import as_json, print_json, tell
from banyan.cli.selecting import select
from banyan.cli.tables import print_table
from banyan.client.api import Client
from banyan.domain.units import counted as number_of
from banyan.domain.units import format_bytes, format_duration

_WINDOW_MAX = "24 hours"
_CLOSER_LOOKS = 2  # a part of a day is half an hour, and a part of that a minute
_SPARKS = "▁▂▃▄▅▆▇█"
Document = Mapping[str, Any]


@click.command("stats")
@with_client()
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
@click.option("--queue", help="Only of this queue.", shell_complete=complete_queue)
@click.option("--tag", multiple=True, metavar="KEY=VALUE", help="Only with this tag.")
@click.option(
    "--by",
    default="state,outcome,queue",
    show_default=True,
    help="What to count by; also: owner, name, tags.KEY.",
)
@click.option(
    "--window", metavar="DURATION", help="How far back. [default: to the first end of the last day]"
)
@click.option(
    "--buckets",
    type=click.IntRange(1, 1000),
    default=48,
    show_default=True,
    help="Into how many parts that time is cut.",
)
@as_json
def stats_command(
    client: Client,
    tasks: tuple[str, ...],
    queue: str | None,
    tag: tuple[str, ...],
    by: str,
    window: str | None,
    buckets: int,
    as_json: bool,
) -> None:
    """How many tasks, how long they took, and how busy the workers are.

    On a terminal what was over time is drawn; in a pipe there is a line for each part of it in
    which there was anything.

    \b
    Example:
      banyan stats --tag sweep=7 --by state,tags.model --window "2 hours"
    """
    like = filters(queue=queue, tag=tag)
    where = select(client, tasks, like).where if tasks or like.conditions else None
    groups = by.split(",")
    counted = client.statistics(where, groups, window=window or _WINDOW_MAX, buckets=buckets)
    for _ in range(_CLOSER_LOOKS if window is None else 0):
        if since := _time_of_the_first(counted):
            counted = client.statistics(where, groups, since=since, buckets=buckets)
    workers = client.worker_statistics(since=counted["window"]["from"], buckets=buckets)
    if as_json:
        print_json({"tasks": counted, "workers": workers})
        return
    _print_counts(counted)
    _print_times(counted)
    _print_past(counted)
    _print_workers(workers)


def sparkline(values: Sequence[float]) -> str:
    """One character a value, the highest as tall as there is room."""
    top = max(values, default=0)
    if top <= 0:
        return _SPARKS[0] * len(values)
    highest = len(_SPARKS) - 1
    return "".join(_SPARKS[max(value > 0, round(value / top * highest))] for value in values)


def _print_counts(counted: Document) -> None:
    counts = {
        **{name: counted[name] for name in counted if name.startswith("by_") and name != "by_tag"},
        **{f"tag {name}": values for name, values in counted.get("by_tag", {}).items()},
    }
    rows = [
        (name.removeprefix("by_"), value, str(count))
        for name, values in counts.items()
        for value, count in sorted(values.items())
    ]
    print_table(("BY", "VALUE", "TASKS"), [*rows, ("all", "", str(counted["count"]))])


def _print_times(counted: Document) -> None:
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


def _number(amount: float) -> str:
    return f"{amount:g}"


def _cores(amount: float) -> str:
    return f"{amount:.3g}"


def _memory(amount: float) -> str:
    return format_bytes(round(amount))


# Of each bucket: what it is called, and how it is written.
_SHOWN: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "ended": ("ended", _number),
    "failed": ("failed", _number),
    "cores": ("cores", _cores),
    "memory_bytes": ("memory", _memory),
    "gpu_count": ("gpus", _cores),
}


def _print_past(counted: Document) -> None:
    """What was over time: drawn on a terminal, in a pipe the numbers."""
    buckets = counted["buckets"]
    ended = number_of(sum(counted["ended"].values()), "attempt")
    told = ", ".join(f"{count:,} {word}" for word, count in counted["ended"].items())
    since = counted["window"]["from"]
    click.echo()
    tell(
        f"{ended} ended since {since}, {counted['ended_per_second'] * 60:.3g} a minute"
        + (f": {told}" if told else "")
    )
    if counted.get("truncated"):
        click.echo("(of the newest 10,000 of these tasks)")
    if not sys.stdout.isatty():
        rows = [
            (bucket["time"], *(write(bucket[name]) for name, (_, write) in _SHOWN.items()))
            for bucket in buckets
            if _is_anything(bucket)
        ]
        print_table(("SINCE", *(title.upper() for title, _ in _SHOWN.values())), rows)
        return
    for name, (title, write) in _SHOWN.items():
        values = [bucket[name] for bucket in buckets]
        if name in ("ended", "cores") or any(values):
            tell(f"{title:<8}{sparkline(values)} peak {write(max(values))}")


def _time_of_the_first(counted: Document) -> str | None:
    """Of the first part in which there was anything; None: of the whole, or of nothing at all."""
    first = next((one for one in counted["buckets"] if _is_anything(one)), None)
    return None if first is None or first is counted["buckets"][0] else str(first["time"])


def _is_anything(bucket: Document) -> bool:
    return any(bucket[name] for name in _SHOWN)


def _print_workers(workers: Document) -> None:
    shown = {"cores": _cores, "memory_bytes": _memory, "gpu_count": _number}
    rows = [
        (name.split("_")[0], *(write(workers.get(part, {}).get(name, 0)) for part in _PARTS))
        for name, write in shown.items()
    ]
    click.echo()
    who = number_of(workers["count"], "worker")
    run = "runs" if workers["count"] == 1 else "run"
    tell(f"{who} {run} {number_of(workers['running'], 'task')}")
    print_table(("RESOURCE", *(part.upper() for part in _PARTS)), rows)


_PARTS = ("used", "reserved", "capacity")
