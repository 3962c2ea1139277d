"""`banyan submit` and `banyan run`: a task into the queue, and waiting for it there.

`run` is meant to feel like the command itself: its output, its exit code, Ctrl-C.
"""

import signal
from types import FrameType
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.following import follow_to_here
from banyan.cli.new_task import task_options
from banyan.cli.output import as_json, print_json, quiet, say
from banyan.cli.verdict import exit_code_of
from banyan.client.api import Client
from banyan.errors import EXIT_INTERRUPTED

_OWN_WORDS_LAST = {"allow_interspersed_args": False}


@click.command("submit", context_settings=_OWN_WORDS_LAST)
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


@click.command("run", context_settings=_OWN_WORDS_LAST)
@with_client()
@task_options
@click.option("--raw", is_flag=True, help="Let control characters through to the terminal.")
def run_command(client: Client, task: dict[str, Any], raw: bool) -> int:
    """Submit COMMAND, follow its output, and end with its exit code.

    128 + n where signal n ended it, 1 where it ended otherwise (timeout, out of memory, lost,
    cancelled). Ctrl-C cancels the task and ends with 130.

    \b
    Example:
      banyan run --cores 1 -- sh -c 'echo hi; exit 3'
    """
    signal.signal(signal.SIGTERM, _interrupt)
    id = client.submit(task)["_id"]
    try:
        follow_to_here(client.transport, id, raw)
        return exit_code_of(client, client.get(id))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the second one ends this at once
        client.cancel([id])
        say(f"banyan: cancelled task {id}")
        return EXIT_INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
