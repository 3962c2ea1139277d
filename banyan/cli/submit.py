"""`banyan submit`: a task into the queue."""

from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.new_task import OWN_WORDS_LAST, task_options
from banyan.cli.output import as_json, print_json, quiet, say
from banyan.client.api import Client


@click.command("submit", context_settings=OWN_WORDS_LAST)
@with_client()
@task_options
@click.option("--hold", is_flag=True, help="Leave it inactive until 'banyan release'.")
@as_json
@quiet
def submit_command(
    client: Client, task: dict[str, Any], hold: bool, as_json: bool, quiet: bool
) -> None:
    """Put COMMAND into the queue and print the task's id.

    COMMAND is a program and its arguments, taken as they are; with --shell it is one line
    for /bin/sh.

    \b
    Example:
      banyan submit --cores 4 --memory "8 GiB" --retries 2 -- python train.py --epochs 10
    """
    created = client.submit(task, hold=hold)
    if as_json:
        print_json(created)
        return
    click.echo(created["_id"])
    if not quiet:
        say(f"{created.get('state', 'submitted')}; see it with: banyan log -f {created['_id']}")
