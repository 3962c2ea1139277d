"""`banyan wait`, `cancel`, `retry`, `release`, `forget`: what is asked of tasks that are there."""

from collections import Counter
from typing import Any

import click

from banyan.cli.asking import assured_of_tasks, yes
from banyan.cli.connection import with_client
from banyan.cli.curl import plain
from banyan.cli.filtering import in_state
from banyan.cli.new_task import changes, options_named
from banyan.cli.output import as_json, print_json, say
from banyan.cli.own_words import own_words
from banyan.cli.sections import in_sections
from banyan.cli.selecting import Selection, ids_of, selection_options
from banyan.cli.verdict import exit_status, in_words, say_hints, standing
from banyan.cli.words import duration_seconds
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.client.ids import PIECE, in_pieces
from banyan.domain.units import counted
from banyan.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_UNAVAILABLE, BanyanError

_CHANGED_BY_RETRY = ("cores", "memory", "gpus", "disk", "custom", "timeout")
_FAILED_TOLD_MAX = 20  # of those that were waited for
_HELD = {"state": "inactive", "pending_dependency_count": 0}  # the others wait for their parents


@click.command("wait")
@with_client()
@selection_options
@click.option("--timeout", metavar="TIME", help="Give up after 90s, 10m, 1h30m (code 75).")
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
        with Working("waiting", len(ids), "have ended") as working:
            ended = client.wait(ids, timeout_seconds=seconds, on_change=working)
    except TimeoutError as problem:
        say(f"banyan: {problem}")
        return EXIT_UNAVAILABLE
    if as_json:
        print_json(ended)
    failed = [task for task in ended if task.get("outcome") != "success"]
    good = counted(len(ended) - len(failed))
    say(f"{good} succeeded" + (f", {len(failed):,} did not" if failed else ""))
    _tell_failed(client, failed)
    return EXIT_TASK_FAILED if failed else EXIT_OK


def _tell_failed(client: Client, failed: list[dict[str, Any]]) -> None:
    told = []
    for one in failed[:_FAILED_TOLD_MAX]:
        task = client.get(one["_id"])
        status = exit_status(client, one["_id"]) if standing(task) == "failure" else ""
        say(f"banyan: task {one['_id']}: {in_words(task, status)}")
        told.append((task, status))
    if left := len(failed) - len(told):
        say(f"banyan: and {left:,} more: see them with 'banyan ls --state failed'")
    say_hints(told)


@click.command("cancel")
@with_client()
@selection_options
@click.option("--force", is_flag=True, help="Kill what runs at once, without its grace.")
@yes
def cancel_command(client: Client, chosen: Selection, force: bool, yes: bool) -> None:
    """Cancel tasks; what waits for them is cancelled too. Ended ones stay as they are.

    One that runs gets SIGTERM, and SIGKILL when its --grace is over; --force also hastens one
    that was cancelled before. More than one: it asks first.

    \b
    Example:
      banyan cancel last
      banyan cancel --yes --state available --tag sweep=7
    """
    # Named one by one they are the server's to judge; of many, those that ended are no matter.
    tasks = chosen.those(client, in_state("open"), "all of them have ended")
    assured_of_tasks(client, tasks, yes, "Cancel", "")
    # The last first: what waits for others of them does not begin meanwhile.
    ids = ids_of(reversed(tasks))
    if not ids:
        return
    with Working("cancelling", len(ids)) as working:
        client.cancel(ids, force=force, on_piece=working)
    _tell_cancelled(client, ids, force)


def _tell_cancelled(client: Client, ids: list[str], force: bool) -> None:
    found = _states_now(client, ids)
    if found is None:
        say(f"{counted(len(ids))} cancelled, or ended before")
        return
    ending, ended = found["pending_cancellation"], found["terminated"]
    if len(ids) - ending - ended > 0:
        say(f"{counted(len(ids) - ending - ended)} cancelled")
    if ending and force:
        say(f"{counted(ending)} being killed")
    elif ending:
        say(f"{counted(ending)} being ended: SIGTERM now, SIGKILL after the grace (--force: now)")
    if ended:
        say(f"{counted(ended)} had ended before")


def _states_now(client: Client, ids: list[str]) -> Counter[str] | None:
    """How many of them are in each state; None where that is not to be had.

    By their ids: others may be like them, and have ended long ago. The work is done by then: a
    server that has gone since makes it no failure.
    """
    if plain(client) is not client:  # nothing was sent
        return None
    counts: Counter[str] = Counter()
    try:
        with Working("counting", len(ids)) as working:
            for number, piece in enumerate(in_pieces(ids)):
                where = {"_id": {"$in": piece}}
                counts.update(client.statistics(where, by=("state",))["by_state"])
                working(number * PIECE + len(piece))
    except BanyanError:
        return None
    return counts


def _retry_options(command: Any) -> Any:
    options_named(_CHANGED_BY_RETRY)(command)
    in_sections(command, {"Changes": _CHANGED_BY_RETRY})
    return command


@click.command("retry")
@with_client()
@selection_options
@click.option("--downstream", is_flag=True, help="And what was cancelled because of them.")
@_retry_options
def retry_command(client: Client, chosen: Selection, downstream: bool, **given: Any) -> None:
    """Give ended tasks one more attempt; earlier attempts and their output are kept.

    Of an array, a name or a tag it takes those that failed, unless --state says otherwise. With
    --memory and its like they ask for something else from now on.

    \b
    Example:
      banyan retry --downstream 6740a1b2
      banyan retry --state oom --tag sweep=7 --memory 8G
    """
    if chosen.stated:
        tasks = chosen.find(client)
    else:
        tasks = chosen.those(client, in_state("failed"), "none of them has failed")
    ids = ids_of(tasks)
    if not ids:
        return
    with own_words(), Working("retrying", len(ids)) as working:
        changed = changes(given)
        client.retry(ids, downstream=downstream, changes=changed, on_piece=working)
    say(f"{counted(len(ids))} will be tried again")


@click.command("release")
@with_client()
@selection_options
def release_command(client: Client, chosen: Selection) -> None:
    """Let tasks go that were submitted with --hold.

    \b
    Example:
      banyan release --state inactive --name train
    """
    ids = ids_of(chosen.those(client, _HELD, "none of them is held"))
    if not ids:
        return
    with Working("releasing", len(ids)) as working:
        client.release(ids, on_piece=working)
    say(f"{counted(len(ids))} released")


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
    tasks = chosen.those(client, in_state("ended"), "none of them has ended")
    assured_of_tasks(client, tasks, yes, "Forget", ", with their output")
    ids = ids_of(tasks)
    if not ids:
        return
    with Working("forgetting", len(ids)) as working:
        client.forget(ids, on_piece=working)
    say(f"{counted(len(ids))} forgotten")
