"""`banyan explain` and `banyan script`: why a task does not run, and how to run it by hand."""

import sys
from typing import Any

import click

from banyan.cli.completing import complete_tasks
from banyan.cli.connection import with_client
from banyan.cli.output import as_json, print_json, tell
from banyan.cli.selecting import find_id
from banyan.cli.verdict import exit_status, say_hints
from banyan.client.api import Client
from banyan.domain.units import format_duration, format_time, parse_time
from banyan.printable import harmless, harmless_lines

# Where an ended task's time went, in the order in which it does.
_TIMES = {
    "dependencies_milliseconds": "waiting for other tasks",
    "queue_milliseconds": "in the queue",
    "running_milliseconds": "running",
    "retries_milliseconds": "between attempts",
}


@click.command("explain")
@with_client()
@click.argument("task", shell_complete=complete_tasks)
@as_json
def explain_command(client: Client, task: str, as_json: bool) -> None:
    """Why a task does not run and what would change that; or where its time went.

    \b
    Example:
      banyan explain last
    """
    told = client.explain(find_id(client, task))
    if as_json:
        print_json(told)
        return
    tell(f"{told['_id']} is {told['state']}")
    for cause in told["causes"]:
        tell(f"  {harmless(cause['message'])}")
        for line in _details(cause):
            tell(f"    {harmless(line)}")
    for name, words in _TIMES.items():
        spent = (told.get("times") or {}).get(name)
        if spent is not None:
            tell(f"  {format_duration(spent).rjust(12)}  {words}")
    if told["state"] == "terminated":
        say_hints([(client.get(told["_id"]), exit_status(client, told["_id"]))])


def _details(cause: dict[str, Any]) -> list[str]:
    lines = [
        f"{parent['_id']} {parent.get('name') or ''} ({parent['state']})"
        for parent in cause.get("parents") or ()
    ]
    if cause.get("count", 0) > len(lines) > 0:
        lines.append(f"and {cause['count'] - len(lines)} more")
    if cause.get("time"):
        lines.append(f"until {format_time(parse_time(cause['time']))}")
    if cause.get("advice"):
        lines.append(f"-> {cause['advice']}")
    return lines


@click.command("script")
@with_client()
@click.argument("task", shell_complete=complete_tasks)
def script_command(client: Client, task: str) -> None:
    """Print a shell script that runs the task again by hand, without Banyan.

    \b
    Example:
      banyan script last > again.sh
    """
    script = client.script(find_id(client, task))
    # On a terminal it is read; a file or a shell gets every byte of it.
    click.echo(harmless_lines(script) if sys.stdout.isatty() else script, nl=False)
