"""`banyan run`: a command somewhere else, as if it were here: its output, its exit code, Ctrl-C."""

import signal
from types import FrameType
from typing import Any

import click

from banyan.cli.connection import with_client
from banyan.cli.following import follow_to_here
from banyan.cli.new_task import OWN_WORDS_LAST, task_options
from banyan.cli.output import say
from banyan.cli.patience import told_why_it_waits
from banyan.cli.streams import forget_output
from banyan.cli.unread_input import tell_of_input
from banyan.cli.verdict import exit_code_of
from banyan.client.api import Client
from banyan.errors import EXIT_INTERRUPTED

_UNREAD = 128 + signal.SIGPIPE  # as a shell has it


@click.command("run", context_settings=OWN_WORDS_LAST)
@with_client()
@task_options
@click.option("--raw", is_flag=True, help="Let control characters through to the terminal.")
def run_command(client: Client, task: dict[str, Any], raw: bool) -> int:
    """Submit COMMAND, follow its output, and end with its exit code.

    128 + n where signal n ended it, 1 where it ended otherwise (timeout, out of memory, lost,
    cancelled). Ctrl-C cancels the task and ends with 130. While it waits it says why. Where its
    reader has gone (| head -1) it ends with 141 at once, and the task goes on. The task's
    standard input is empty.

    \b
    Example:
      banyan run --cores 1 -- sh -c 'echo hi; exit 3'
    """
    signal.signal(signal.SIGTERM, _interrupt)
    told = tell_of_input()
    id = client.submit(task)["_id"]
    try:
        with told_why_it_waits(client, id):
            follow_to_here(client.transport, id, raw, first=1)
        if not told:  # it may come late
            tell_of_input()
        return exit_code_of(client, client.get(id))
    except BrokenPipeError:
        forget_output()
        say(f"banyan: nobody reads the output any more; the task goes on: banyan log -f {id}")
        return _UNREAD
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the second one ends this at once
        client.cancel([id])
        say(f"banyan: cancelled task {id}")
        return EXIT_INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
