"""What tasks are like, as options: in which state, of which name, on which host, since when.

Called by every command that takes tasks. Errors name the option.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from banyan.cli.completing import complete_queue, complete_tasks
from banyan.cli.sections import in_sections
from banyan.cli.words import pairs, time_ago
from banyan.client.api import Client
from banyan.client.graph import ARRAY_TAG
from banyan.client.ids import since as id_since
from banyan.domain.units import format_time
from banyan.errors import BanyanError

STATES = ("inactive", "available", "running", "pending_cancellation", "cancelled", "terminated")
OUTCOMES = ("success", "failure", "timeout", "oom", "lost")
_FAILED = "failed"
OUTCOME_WORDS = (*OUTCOMES, _FAILED)
STATE_WORDS = (*STATES, *OUTCOME_WORDS, "open", "ended")

Where = dict[str, Any]


class Like(NamedTuple):
    """What tasks are like: all of these conditions hold. stated: a state is one of them."""

    conditions: list[Where]
    stated: bool = False


def with_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command `tasks`, as they are named, and `like`, what its options say of them."""

    @click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
    @functools.wraps(command)
    def filtered(client: Client, **options: Any) -> Any:
        given = {name: options.pop(name) for name in _FILTERS}
        return command(client, like=filters(**given), **options)

    for option in reversed(list(_FILTERS.values())):
        filtered = option(filtered)
    in_sections(filtered, {"Which tasks": tuple(_FILTERS)})
    return filtered


def filters(
    *,
    state: str | None = None,
    outcome: str | None = None,
    since: str | None = None,
    tag: Sequence[str] = (),
    **equal: str | None,
) -> Like:
    """What these options stand for. Errors: `usage`."""
    conditions = [in_state(state)] if state else []
    conditions += [_with_outcome(outcome)] if outcome else []
    conditions += [{key: value} for key, value in equal.items() if value]
    if since:
        conditions.append({"_updated": {"$gte": format_time(time_ago(since, "--since"))}})
    conditions += [tagged(key, value) for key, value in pairs(tag, "--tag").items()]
    return Like(conditions, bool(state or outcome))


def in_state(word: str) -> Where:
    """The filter for `--state`: a state, an outcome, or a word for several. Errors: `usage`."""
    if word in STATES:
        return {"state": word}
    if word in OUTCOME_WORDS:
        return _with_outcome(word)
    if word in ("open", "ended"):
        return {"state": {"$nin" if word == "open" else "$in": ["terminated", "cancelled"]}}
    raise BanyanError("usage", f"--state {word!r} is none of {', '.join(STATE_WORDS)}")


def _with_outcome(word: str) -> Where:
    if word in OUTCOMES:
        return {"outcome": word}
    if word == _FAILED:
        return {"outcome": {"$in": [outcome for outcome in OUTCOMES if outcome != "success"]}}
    raise BanyanError("usage", f"--outcome {word!r} is none of {', '.join(OUTCOME_WORDS)}")


def complete_outcome(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
    """For the shell's completion."""
    return [word for word in OUTCOME_WORDS if word.startswith(begun)]


def complete_state(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
    """For the shell's completion."""
    return [word for word in STATE_WORDS if word.startswith(begun)]


def tagged(key: str, value: str) -> Where:
    """The filter for `--tag`."""
    if key == ARRAY_TAG and re.fullmatch(r"[0-9a-f]{24}", value):
        # Its members are no older than the first: that spares the database the others.
        return {f"tags.{key}": value, "_id": {"$gte": id_since(value)}}
    return {f"tags.{key}": value}


_FILTERS: Mapping[str, Callable[..., Any]] = {
    "state": click.option(
        "--state",
        metavar="STATE",
        help="In a state or with an outcome; also: failed, open, ended.",
        shell_complete=complete_state,
    ),
    "outcome": click.option(
        "--outcome",
        metavar="OUTCOME",
        help="That ended so: success, failure, timeout, oom, lost; failed: all but success.",
        shell_complete=complete_outcome,
    ),
    "name": click.option("--name", help="Of this name."),
    "queue": click.option("--queue", help="Of this queue.", shell_complete=complete_queue),
    "tag": click.option("--tag", multiple=True, metavar="KEY=VALUE", help="With this tag."),
    "host": click.option("--host", help="That ran last on this host."),
    "since": click.option(
        "--since",
        metavar="TIME",
        help="Submitted, begun or ended since: yesterday, 90m, 7d, 22:30, 2026-12-31.",
    ),
    "owner": click.option("--owner", help="Of this account; for operators."),
}
