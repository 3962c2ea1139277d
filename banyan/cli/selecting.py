"""Which tasks are meant: an id, the beginning of one, `last`, `@name`, or what they are like.

Called by every command that takes tasks. It must never guess between two. What it has to look
up is asked for even where the command's own request is only printed (`--curl`).
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from banyan.cli.completing import complete_queue, complete_tasks
from banyan.cli.curl import plain
from banyan.cli.output import say
from banyan.cli.sections import in_sections
from banyan.cli.words import pairs
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.client.ids import since
from banyan.domain.units import counted
from banyan.errors import BanyanError

ID_DIGITS = 24
ARRAY_TAG = "array"  # of tasks submitted together; its value is the id of the first

STATES = ("inactive", "available", "running", "pending_cancellation", "cancelled", "terminated")
OUTCOMES = ("success", "failure", "timeout", "oom", "lost")
STATE_WORDS = (*STATES, *OUTCOMES, "failed", "open", "ended")

Where = dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """Tasks as a filter. `ids`: where each was named, so that nothing must be looked up.

    broad:  it was not named one by one (`@name`, an array, filters).
    stated: a state was asked for.
    """

    where: Where
    ids: tuple[str, ...] = ()
    broad: bool = False
    stated: bool = False

    def find_ids(self, client: Client) -> list[str]:
        """The ids; the oldest first unless they were named. Errors: `not_found` for none."""
        return ids_of(self.find(client))

    def find(self, client: Client) -> list[dict[str, Any]]:
        """As `find_ids`, each with its `owner` where it had to be looked up."""
        if self.ids:
            return [{"_id": one} for one in self.ids]
        found = plain(client).find(self.where, sort="_id", projection={"owner": 1})
        kept = ("_id", "owner")  # of what a false server says besides
        tasks: list[dict[str, Any]] = []
        with Working("looking for tasks") as working:
            for one in found:
                tasks.append({name: one[name] for name in kept if name in one})
                working(len(tasks))
        if not tasks:
            raise BanyanError("not_found", "there is no such task")
        return tasks

    def those(self, client: Client, condition: Where, none: str) -> list[dict[str, Any]]:
        """As `find`; of what was not named one by one, those that the condition holds for.

        none: said where there are tasks, but none of these; the list is empty then.
        """
        if not self.broad:
            return self.find(client)
        try:
            return self.only(condition).find(client)
        except BanyanError as error:
            count = plain(client).statistics(self.where)["count"]
            if error.word != "not_found" or not count:
                raise
        say(f"banyan: nothing to do for {counted(count)}: {none}")
        return []

    def only(self, condition: Where) -> "Selection":
        """Those of them that this holds for, too."""
        return Selection({"$and": [self.where, condition]}, (), self.broad, True)


def ids_of(tasks: Iterable[dict[str, Any]]) -> list[str]:
    """Their ids, in the same order."""
    return [str(task["_id"]) for task in tasks]


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command `chosen`, a function from its Client to the Selection of its line."""

    @click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
    @click.option(
        "--state",
        metavar="STATE",
        help="Those in a state or with an outcome; also: failed, open, ended.",
        shell_complete=complete_state,
    )
    @click.option("--name", help="Those of this name.")
    @click.option("--queue", help="Those of this queue.", shell_complete=complete_queue)
    @click.option("--tag", multiple=True, metavar="KEY=VALUE", help="Those with this tag.")
    @click.option("--owner", help="Those of this account; for operators.")
    @functools.wraps(command)
    def with_selection(
        client: Client,
        tasks: tuple[str, ...],
        state: str | None,
        name: str | None,
        queue: str | None,
        tag: tuple[str, ...],
        owner: str | None,
        **options: Any,
    ) -> Any:
        like = filters(state, name, queue, tag, owner)
        chosen = select(client, tasks, like, stated=state is not None)
        return command(client, chosen=chosen, **options)

    in_sections(with_selection, {"Which tasks": ("state", "name", "queue", "tag", "owner")})
    return with_selection


def filters(
    state: str | None,
    name: str | None,
    queue: str | None,
    tags: Sequence[str],
    owner: str | None = None,
) -> list[Where]:
    """The conditions that these options stand for. Errors: `usage`."""
    conditions = [in_state(state)] if state else []
    equal = {"name": name, "queue": queue, "owner": owner}
    conditions += [{key: value} for key, value in equal.items() if value]
    conditions += [_tagged(key, value) for key, value in pairs(tags, "--tag").items()]
    return conditions


def select(
    client: Client, texts: Sequence[str], like: Sequence[Where], stated: bool = False
) -> Selection:
    """What is named, as far as it is like that. Errors: `usage` where nothing is asked for."""
    if not texts and not like:
        options = "--state, --tag, --name, --queue or --owner"
        raise BanyanError("usage", f"which tasks? Name ids, 'last', @name, or give {options}")
    named = [_named(client, text) for text in dict.fromkeys(texts)]
    ids = [one for one in named if isinstance(one, str)]
    if named and not like and len(ids) == len(named):
        unique = tuple(dict.fromkeys(ids))
        return Selection({"_id": {"$in": list(unique)}}, unique)
    either: list[Where] = [one for one in named if not isinstance(one, str)]
    if ids:
        either.append({"_id": {"$in": ids}})
    conditions = [*like, *([either[0] if len(either) == 1 else {"$or": either}] if either else [])]
    where = conditions[0] if len(conditions) == 1 else {"$and": conditions}
    return Selection(where, (), True, stated)


def find_id(client: Client, text: str) -> str:
    """The one id that is meant. Errors: `not_found`, `usage` where it is not unique."""
    if text == "last":
        return str(_newest(client)["_id"])
    if text.startswith("@"):
        return _only_one(client, {"name": text[1:]}, f"named {text[1:]}")
    if not re.fullmatch(r"[0-9a-f]{4,24}", text):
        message = f"{text!r} is no id: write its 24 hex digits, at least the first 4"
        raise BanyanError("usage", f"{message}, or 'last', or @name")
    if len(text) == ID_DIGITS:
        return text
    bounds = {"$gte": text.ljust(ID_DIGITS, "0"), "$lte": text.ljust(ID_DIGITS, "f")}
    return _only_one(client, {"_id": bounds}, f"whose id begins with {text}")


def find_ids(client: Client, texts: Iterable[str]) -> list[str]:
    """All that are meant by names and ids, each once: the parents of a new task."""
    found: list[str] = []
    for text in texts:
        one = _named(client, text)
        found += [one] if isinstance(one, str) else Selection(one).find_ids(client)
    return list(dict.fromkeys(found))


def in_state(word: str) -> Where:
    """The filter for `--state`: a state, an outcome, or a word for several. Errors: `usage`."""
    if word in STATES:
        return {"state": word}
    if word in OUTCOMES:
        return {"outcome": word}
    if word == "failed":
        return {"outcome": {"$in": [outcome for outcome in OUTCOMES if outcome != "success"]}}
    if word in ("open", "ended"):
        return {"state": {"$nin" if word == "open" else "$in": ["terminated", "cancelled"]}}
    raise BanyanError("usage", f"--state {word!r} is none of {', '.join(STATE_WORDS)}")


def complete_state(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
    """For the shell's completion."""
    return [word for word in STATE_WORDS if word.startswith(begun)]


def _named(client: Client, text: str) -> str | Where:
    """One id, or the filter for all of a name or of the array that was submitted last."""
    if text.startswith("@"):
        return {"name": text[1:]}
    if text != "last":
        return find_id(client, text)
    newest = _newest(client)
    array = (newest.get("tags") or {}).get(ARRAY_TAG)
    if not array:
        return str(newest["_id"])
    # Anybody may give a task the tag of another's array; so may a running task of one's own.
    alike = {name: newest.get(name) for name in ("owner", "submitted_by")}
    return {**_tagged(ARRAY_TAG, array), **alike}


def _tagged(key: str, value: str) -> Where:
    if key == ARRAY_TAG and re.fullmatch(r"[0-9a-f]{24}", value):
        # Its members are no older than the first: that spares the database the others.
        return {f"tags.{key}": value, "_id": {"$gte": since(value)}}
    return {f"tags.{key}": value}


def _newest(client: Client) -> dict[str, Any]:
    """The newest task of the caller; of all that it sees only where it has none.

    Else an operator's `last` would be whatever somebody has submitted a moment ago.
    """
    own = plain(client).account()
    wanted = {"tags": 1, "owner": 1, "submitted_by": 1}
    for where in [{"owner": own}, None] if own else [None]:
        found = plain(client).find(where, sort="-_created,-_id", limit=1, projection=wanted)
        if newest := next(found, None):
            return newest
    raise BanyanError("not_found", "there is no task yet")


def _only_one(client: Client, where: Where, told: str) -> str:
    found = list(plain(client).find(where, projection={"name": 1}, limit=2))
    if not found:
        raise BanyanError("not_found", f"there is no task {told}")
    if len(found) > 1:
        raise BanyanError(
            "usage", f"several tasks are meant by this ({told}): write more of the id"
        )
    return str(found[0]["_id"])
