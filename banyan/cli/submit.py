"""`banyan submit`: a task into the queue, or many at once."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import click

from banyan.cli.connection import with_client
from banyan.cli.new_task import OWN_WORDS_LAST, task_options
from banyan.cli.output import as_json, in_local_time, print_json, quiet, say, tell
from banyan.cli.sweeps import expanded, sweep_options
from banyan.cli.unread_input import tell_of_input
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.domain.units import counted


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
    at_most: int | None,
    hold: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put COMMAND into the queue and print the task's id, or @ID for all tasks of an array.

    With -q it prints the id of each task, one per line.

    COMMAND is a program and its arguments, taken as they are; with --shell it is one line
    for /bin/sh. Of a script that ends in .sh the comments '#BANYAN --cores 4' at its top are
    read as options.

    \b
    Example:
      banyan submit --cores 4 --memory 8G --retries 2 -- python train.py --epochs 10
      banyan submit --each-line params.txt -- python sim.py {line}
      banyan submit --array 1-9 --name fit-{index} -- python fit.py --fold {index}
    """
    many = expanded(task, array, each_line, from_json, at_most)
    if not quiet:
        tell_of_input()
    tasks = [task] if many is None else many
    with _interrupted_in_words(tasks), Working("submitting", len(tasks)) as working:
        created = client.submit(tasks, hold=hold, on_piece=working)
    if as_json:
        print_json(created[0] if many is None else created)
        return
    as_array = many is not None and not quiet
    for name in [_handle_of(created)] if as_array else [one["_id"] for one in created]:
        tell(name)
    if not quiet:
        _say_what_became_of(tasks, created, many is not None, hold)


@contextlib.contextmanager
def _interrupted_in_words(tasks: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """After Ctrl-C it is said how to find what is there already."""
    try:
        yield
    except KeyboardInterrupt:
        if len(tasks) > 1:
            array = _handle_of(tasks)
            told = f"some of the {counted(len(tasks))} may be stored"
            say(f"\n{told}: see banyan progress {array}")
        raise


def _handle_of(array: Sequence[Mapping[str, Any]]) -> str:
    return f"@{array[0]['_id']}"


def _say_what_became_of(
    sent: Sequence[Mapping[str, Any]], created: Sequence[Mapping[str, Any]], many: bool, hold: bool
) -> None:
    pairs = zip(sent, created, strict=True)
    before = sum("_id" in ours and ours["_id"] != one["_id"] for ours, one in pairs)
    if many:
        there = f"; {before:,} of them had been submitted before" if before else ""
        array = _handle_of(created)
        held = f", held: let them run with 'banyan release {array}'" if hold else ""
        far = f"see how far they are with: banyan progress {array}"
        say(f"{counted(len(created))}{held}{there}; {far}")
        return
    one = created[0]
    if one.get("state") == "inactive":
        next_step = "held; let it run with: banyan release" if hold else "it waits: banyan explain"
        say(f"{next_step} {one['_id']}")
        return
    standing = one.get("outcome") or one.get("state", "submitted")
    there = "submitted before with this key, " if before else ""
    wakes = one.get("not_before") if standing == "available" else None
    when = f", not before {in_local_time(wakes)}" if wakes else ""
    say(f"{there}{standing}{when}; see it with: banyan log -f {one['_id']}")
