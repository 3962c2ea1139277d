"""`banyan wait`, `cancel`, `retry` and `release`: what is asked of tasks that are there."""

import sys

import click

from banyan.cli.connection import with_client
from banyan.cli.output import as_json, print_json, say
from banyan.cli.selecting import find_ids
from banyan.cli.verdict import exit_status, standing
from banyan.cli.words import duration_seconds
from banyan.client.api import Client
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_UNAVAILABLE

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.command("wait")
@with_client()
@_ids
@click.option("--timeout", metavar="TIME", help='Give up after "90s", "10 minutes" (code 75).')
@as_json
def wait_command(client: Client, ids: tuple[str, ...], timeout: str | None, as_json: bool) -> int:
    """Wait until all the tasks have ended; 1 if one of them did not succeed.

    \b
    Example:
      banyan wait --timeout 1h $(banyan submit -q -- make) && echo built
    """
    seconds = None if timeout is None else duration_seconds(timeout, "--timeout")
    chosen = find_ids(client, ids)
    try:
        ended = client.wait(chosen, timeout_seconds=seconds, on_change=_Counter(len(chosen)))
    except TimeoutError as problem:
        say(f"banyan: {problem}")
        return EXIT_UNAVAILABLE
    if as_json:
        print_json(ended)
    failed = [task for task in ended if task.get("outcome") != "success"]
    for task in failed:
        status = standing(task)
        if status == "failure":
            status = exit_status(client, task["_id"])
        say(f"banyan: task {task['_id']}: {status}")
    return EXIT_TASK_FAILED if failed else EXIT_OK


@click.command("cancel")
@with_client()
@_ids
def cancel_command(client: Client, ids: tuple[str, ...]) -> None:
    """Cancel tasks; what waits for them is cancelled too. Ended ones stay as they are.

    \b
    Example:
      banyan cancel last
    """
    client.cancel(find_ids(client, ids))


@click.command("retry")
@with_client()
@_ids
@click.option("--downstream", is_flag=True, help="And what was cancelled because of them.")
def retry_command(client: Client, ids: tuple[str, ...], downstream: bool) -> None:
    """Give ended tasks one more attempt; earlier attempts and their output are kept.

    \b
    Example:
      banyan retry --downstream 6740a1b2
    """
    client.retry(find_ids(client, ids), downstream=downstream)


@click.command("release")
@with_client()
@_ids
def release_command(client: Client, ids: tuple[str, ...]) -> None:
    """Let tasks go that were submitted with --hold.

    \b
    Example:
      banyan release $(banyan ls -q --state inactive)
    """
    client.release(find_ids(client, ids))


class _Counter:
    """Shows on a terminal how many have ended."""

    def __init__(self, total: int) -> None:
        self._shown = total > 1 and sys.stderr.isatty()

    def __call__(self, ended: int, total: int) -> None:
        if self._shown:
            end = "\n" if ended == total else ""
            click.echo(f"\r{ended} of {total} have ended", err=True, nl=False)
            click.echo(end, err=True, nl=False)
