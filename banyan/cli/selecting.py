"""Which tasks are meant: an id, the beginning of one, `last`, `@name`, or what they are like.

`@ID` is an array, as `banyan submit` prints it. `@name` is all tasks of a name, but for the parents
of a new task: there it is the newest submission of that name.
Called by every command that takes tasks. It must never guess between two. What it has to look
up is asked for even where the command's own request is only printed (`--curl`).
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from banyan.cli.curl import plain
from banyan.cli.filtering import Like, Where, tagged, with_filters
from banyan.cli.output import say
from banyan.cli.working import Working
from banyan.client.api import Client
from banyan.client.graph import ARRAY_TAG
from banyan.domain.units import counted
from banyan.errors import BanyanError

ID_DIGITS = 24


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

    @with_filters
    @functools.wraps(command)
    def with_selection(client: Client, tasks: tuple[str, ...], like: Like, **options: Any) -> Any:
        return command(client, chosen=select(client, tasks, like), **options)

    return with_selection


def select(client: Client, texts: Sequence[str], like: Like) -> Selection:
    """What is named, as far as it is like that. Errors: `usage` where nothing is asked for."""
    if not texts and not like.conditions:
        options = "an option such as --state, --tag or --name"
        raise BanyanError("usage", f"which tasks? Name ids, 'last', @name, or give {options}")
    named = [_named(client, text) for text in apart(texts)]
    ids = [one for one in named if isinstance(one, str)]
    if named and not like.conditions and len(ids) == len(named):
        unique = tuple(dict.fromkeys(ids))
        return Selection({"_id": {"$in": list(unique)}}, unique)
    either: list[Where] = [one for one in named if not isinstance(one, str)]
    if ids:
        either.append({"_id": {"$in": ids}})
    conditions = list(like.conditions)
    if either:
        conditions.append(either[0] if len(either) == 1 else {"$or": either})
    where = conditions[0] if len(conditions) == 1 else {"$and": conditions}
    return Selection(where, (), True, like.stated)


def apart(texts: Sequence[str]) -> list[str]:
    """Each that is named once; several may stand in one word, with commas. Errors: `usage`."""
    found = [one for text in texts for one in text.split(",") if one]
    if texts and not found:
        raise BanyanError("usage", "the id of a task is missing")
    return list(dict.fromkeys(found))


def find_id(client: Client, text: str) -> str:
    """The one id that is meant. Errors: `not_found`, `usage` where it is not unique."""
    if text == "last":
        return str(_newest_of_all(client)["_id"])
    if text.startswith("@"):
        return _only_one(client, _all_of(client, text), text)
    if not re.fullmatch(r"[0-9a-f]{4,24}", text):
        message = f"{text!r} is no id: write its 24 hex digits, at least the first 4"
        raise BanyanError("usage", f"{message}, or 'last', or @name")
    if len(text) == ID_DIGITS:
        return text
    bounds = {"$gte": text.ljust(ID_DIGITS, "0"), "$lte": text.ljust(ID_DIGITS, "f")}
    return _only_one(client, {"_id": bounds}, text)


def find_parents(client: Client, texts: Sequence[str]) -> list[str]:
    """All that are meant by names and ids, each once: the parents of a new task.

    Of a name that is what one command has submitted last: tasks of last week, that may have
    failed, are not what the new one waits for. It is told where there are such.
    """
    found: list[str] = []
    for text in apart(texts):
        is_name = text.startswith("@") and not _ARRAY.fullmatch(text)
        one = _newest_of_name(client, text) if is_name else _named(client, text)
        found += [one] if isinstance(one, str) else Selection(one).find_ids(client)
    return list(dict.fromkeys(found))


_ARRAY = re.compile(r"@[0-9a-f]{24}")
_SUBMITTER = ("owner", "submitted_by")
_OF_ARRAY = {"tags": 1, "_created": 1, **dict.fromkeys(_SUBMITTER, 1)}


def _named(client: Client, text: str) -> str | Where:
    """One id, or the filter for all of a name or of an array."""
    if text.startswith("@"):
        return _all_of(client, text)
    if text != "last":
        return find_id(client, text)
    newest = _newest_of_all(client)
    return _array_of(newest) or str(newest["_id"])


def _all_of(client: Client, text: str) -> Where:
    """The filter for `@name` or `@ID`."""
    if not _ARRAY.fullmatch(text):
        return {"name": text[1:]}
    id = text[1:]
    first = _first(client, {"_id": id})  # it may have been forgotten before the others
    if first and (named := _array_of(first)):  # by a --dedupe-key, perhaps
        return named
    return _array_of({**(first or {"owner": plain(client).account()}), "tags": {ARRAY_TAG: id}})


def _newest_of_name(client: Client, text: str) -> str | Where:
    alike = {"name": text[1:]}
    newest = _newest(client, alike)
    if newest is None:
        raise BanyanError("not_found", f"there is no task named {text[1:]}")
    array = _array_of(newest)
    first = (_first(client, {**array, **alike}, "_created,_id") if array else None) or newest
    if _first(client, {**alike, "owner": newest["owner"], **_before(first)}):
        meant = "the array" if array else "the task"
        say(f"banyan: {text} means {meant} that was submitted last; earlier ones are left out")
    return {**array, **alike} if array else str(newest["_id"])


def _before(task: dict[str, Any]) -> Where:
    """The filter for what was made before it; ids that clients choose tell no time."""
    created = task["_created"]
    same_moment = {"_created": created, "_id": {"$lt": task["_id"]}}
    return {"$or": [{"_created": {"$lt": created}}, same_moment]}


def _array_of(task: dict[str, Any]) -> Where:
    """The filter for the array of a task; empty where it is of none."""
    array = (task.get("tags") or {}).get(ARRAY_TAG)
    if not array:
        return {}
    # Anybody may give a task the tag of another's array; so may a running task of one's own.
    return {**tagged(ARRAY_TAG, array), **{name: task.get(name) for name in _SUBMITTER}}


def _newest_of_all(client: Client) -> dict[str, Any]:
    newest = _newest(client, {})
    if newest is None:
        raise BanyanError("not_found", "there is no task yet")
    return newest


def _newest(client: Client, like: Where) -> dict[str, Any] | None:
    """The newest such task of the caller; of all that it sees only where it has none.

    Else an operator's `last` would be whatever somebody has submitted a moment ago.
    """
    own = plain(client).account()
    wheres: list[Where | None] = [{"owner": own, **like}] if own else []
    found = (_first(client, one, "-_created,-_id") for one in [*wheres, like or None])
    return next(filter(None, found), None)


def _first(client: Client, where: Where | None, sort: str | None = None) -> dict[str, Any] | None:
    return next(plain(client).find(where, sort=sort, limit=1, projection=_OF_ARRAY), None)


def _only_one(client: Client, where: Where, text: str) -> str:
    found = list(plain(client).find(where, projection={"name": 1}, limit=2))
    if not found:
        told = f"named {text[1:]}" if text.startswith("@") else f"whose id begins with {text}"
        raise BanyanError("not_found", f"there is no task {told}")
    if len(found) > 1 and text.startswith("@"):
        message = f"{text} names several tasks, and this command takes one"
        raise BanyanError("usage", f"{message}: see banyan ls {text}")
    if len(found) > 1:
        message = f"several tasks have ids that begin with {text}"
        raise BanyanError("usage", f"{message}: write more of the id")
    return str(found[0]["_id"])
