"""`banyan submit`: a task into the queue, or many at once."""

from typing import Any, TextIO

import click

from banyan.cli.connection import with_client
from banyan.cli.new_task import OWN_WORDS_LAST, task_options
from banyan.cli.output import as_json, print_json, quiet, say, tell
from banyan.cli.sweeps import expanded, sweep_options
from banyan.client.api import Client
from banyan.client.graph import ARRAY_TAG


@click.command("submit", context_settings=OWN_WORDS_LAST)
@with_client()
@task_options
@sweep_options
@click.option("--hold", is_flag=True, help="Leave it inactive until 'banyan release'.")
@as_json
@quiet
def submit_command(
    client: Client,
    task: dict[str, Any],
    array: str | None,
    each_line: TextIO | None,
    from_json: TextIO | None,
    hold: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put COMMAND into the queue and print the task's id, or @ID for all tasks of an array.

    With -q it prints the id of each task, one a line.

    COMMAND is a program and its arguments, taken as they are; with --shell it is one line
    for /bin/sh. Of a script that ends in .sh the comments '#BANYAN --cores 4' at its top are
    read as options.

    \b
    Example:
      banyan submit --cores 4 --memory "8 GiB" --retries 2 -- python train.py --epochs 10
      banyan submit --each-line params.txt -- python sim.py {line}
      banyan submit --array 1-9 --name fit-{index} -- python fit.py --fold {index}
    """
    many = expanded(task, array, each_line, from_json)
    created = client.submit([task] if many is None else many, hold=hold)
    if as_json:
        print_json(created[0] if many is None else created)
        return
    if quiet or many is None:
        for one in created:
            tell(one["_id"])
    if many is not None and not quiet:
        array = f"@{many[0]['tags'][ARRAY_TAG]}"
        tell(array)
        say(f"{len(created)} tasks; see how far they are with: banyan progress {array}")
    elif many is None and not quiet:
        one = created[0]
        say(f"{one.get('state', 'submitted')}; see it with: banyan log -f {one['_id']}")
