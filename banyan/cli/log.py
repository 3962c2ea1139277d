"""`banyan log`: what a task has written."""

import click

from banyan.cli.connection import with_client
from banyan.cli.following import follow_to_here, write
from banyan.cli.selecting import find_id
from banyan.client.api import Client


@click.command("log")
@with_client()
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on as it comes, until the task has ended.")
@click.option("--attempt", type=click.IntRange(min=1), help="Which one. [default: the last]")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this one.")
@click.option("--raw", is_flag=True, help="Let control characters through to the terminal.")
def log_command(
    client: Client, id: str, follow: bool, attempt: int | None, stream: str | None, raw: bool
) -> None:
    """What a task has written, both streams in the order in which it came.

    In a pipe the bytes are those that the task wrote. With -f, where standard output and
    error of this command are two places, each stream goes to its own.

    \b
    Example:
      banyan log -f last
    """
    chosen = find_id(client, id)
    if follow and attempt is None and stream is None:
        follow_to_here(client.transport, chosen, raw)
    elif follow:
        write(client.follow(chosen, attempt=attempt, stream=stream), 1, raw)
    else:
        write([client.log(chosen, attempt=attempt, stream=stream)], 1, raw)
