"""`banyan wait`, `cancel`, `retry`, `release`, `forget`: what is asked of tasks that are there."""

import sys

import click

from banyan.cli.asking import assured_of_tasks, yes
from banyan.cli.connection import with_client
from banyan.cli.output import as_json, print_json, say
from banyan.cli.selecting import Selection, ids_of, in_state, selection_options
from banyan.cli.verdict import exit_status, in_words, standing
from banyan.cli.words import duration_seconds
from banyan.client.api import Client
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_UNAVAILABLE


@click.command("wait")
@with_client()
@selection_options
@click.option("--timeout", metavar="TIME", help='Give up after "90s", "10 minutes" (code 75).')
@as_json
def wait_command(client: Client, chosen: Selection, timeout: str | None, as_json: bool) -> int:
    """Wait until all the tasks have ended; 1 if one of them did not succeed.

    \b
    Example:
      banyan wait --timeout 1h $(banyan submit -q -- make) && echo built
    """
    seconds = None if timeout is None else duration_seconds(timeout, "--timeout")
    ids = chosen.find_ids(client)
    try:
        ended = client.wait(ids, timeout_seconds=seconds, on_change=_Counter(len(ids)))
    except TimeoutError as problem:
        say(f"banyan: {problem}")
        return EXIT_UNAVAILABLE
    if as_json:
        print_json(ended)
    failed = [task for task in ended if task.get("outcome") != "success"]
    for task in failed:
        status = exit_status(client, task["_id"]) if standing(task) == "failure" else ""
        say(f"banyan: task {task['_id']}: {in_words(task, status)}")
    return EXIT_TASK_FAILED if failed else EXIT_OK


@click.command("cancel")
@with_client()
@selection_options
@yes
def cancel_command(client: Client, chosen: Selection, yes: bool) -> None:
    """Cancel tasks; what waits for them is cancelled too. Ended ones stay as they are.

    More than one: it asks first.

    \b
    Example:
      banyan cancel last
      banyan cancel --yes --state available --tag sweep=7
    """
    # Named one by one they are the server's to judge; of many, those that ended are no matter.
    tasks = chosen.among(client, in_state("open"), "nothing to cancel: all of them have ended")
    if tasks:
        assured_of_tasks(client, tasks, yes, "Cancel", "")
        client.cancel(ids_of(tasks))


@click.command("retry")
@with_client()
@selection_options
@click.option("--downstream", is_flag=True, help="And what was cancelled because of them.")
def retry_command(client: Client, chosen: Selection, downstream: bool) -> None:
    """Give ended tasks one more attempt; earlier attempts and their output are kept.

    Of an array, a name or a tag it takes those that failed, unless --state says otherwise.

    \b
    Example:
      banyan retry --downstream 6740a1b2
      banyan retry --state failed --tag sweep=7
    """
    if chosen.stated:
        ids = chosen.find_ids(client)
    else:
        nothing = "nothing to retry: none of them has failed"
        ids = ids_of(chosen.among(client, in_state("failed"), nothing))
    if ids:
        client.retry(ids, downstream=downstream)
    if ids and chosen.broad:
        say(f"{len(ids)} tasks have one more attempt")


@click.command("release")
@with_client()
@selection_options
def release_command(client: Client, chosen: Selection) -> None:
    """Let tasks go that were submitted with --hold.

    \b
    Example:
      banyan release --state inactive --name train
    """
    nothing = "nothing to release: none of them is held"
    tasks = chosen.among(client, {"state": "inactive"}, nothing)
    if tasks:
        client.release(ids_of(tasks))


@click.command("forget")
@with_client()
@selection_options
@yes
def forget_command(client: Client, chosen: Selection, yes: bool) -> None:
    """Remove ended tasks for good, with their attempts and output.

    More than one: it asks first. Without it they go by themselves when their time is over:
    see 'banyan submit --retain'. Of an array, a name or a tag it takes those that have ended.

    \b
    Example:
      banyan forget --yes --state success --tag sweep=7
    """
    tasks = chosen.among(client, in_state("ended"), "nothing to forget: none of them has ended")
    if tasks:
        assured_of_tasks(client, tasks, yes, "Forget", ", with their output")
        client.forget(ids_of(tasks))
    if tasks and chosen.broad:
        say(f"{len(tasks)} tasks are gone")


class _Counter:
    """Shows on a terminal how many have ended."""

    def __init__(self, total: int) -> None:
        self._shown = total > 1 and sys.stderr.isatty()

    def __call__(self, ended: int, total: int) -> None:
        if self._shown:
            end = "\n" if ended == total else ""
            click.echo(f"\r{ended} of {total} have ended", err=True, nl=False)
            click.echo(end, err=True, nl=False)
