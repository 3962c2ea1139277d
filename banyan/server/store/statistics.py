"""How many tasks there are of each kind, counted by the database as of one moment.

Called by the verb `statistics` and for the metrics. Counting by state, queue, outcome and owner
touches no document: the index `kinds` has an entry a task, and of each kind there the entries
are counted where they lie. Everything else is a pass over the documents that match. All of it
is read from one snapshot, so that no task is counted in the state that it left as well.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from itertools import islice
from time import sleep
from typing import Any, NamedTuple

from bson import MaxKey, MinKey
from pymongo.errors import OperationFailure

from banyan.domain.states import State
from banyan.errors import BanyanError
from banyan.server.store.mongo import Document, Store

KINDS = ("owner", "state", "queue", "outcome")  # the fields of the index, in its order
INDEX = "kinds"
TAGS = "tags."
# Beyond so many kinds, one pass over the whole index is the faster way.
KINDS_MAX = 300
GROUPS_MAX = 100_000  # of an answer: names and tags may be as many as tasks
_COUNTED_AT_ONCE = 4
_SNAPSHOT_UNAVAILABLE = 246  # right after an index was made
_TRIES = 5
_PAUSE_SECONDS = 0.1


class Kind(NamedTuple):
    """What tasks that are counted together have in common; None: nothing, or it is not known."""

    owner: str
    state: str
    queue: str | None
    outcome: str | None


def count_tasks(store: Store, query: Mapping[str, Any], groups: Sequence[str]) -> Document:
    """{"count": n, "by_state": {value: n}, ..., "by_tag": {name: {value: n}}} for these groups."""
    wanted = of_kinds(query)
    for tries_left in range(_TRIES, -1, -1):
        try:
            if wanted is None or not set(groups) <= set(KINDS):
                return _told(_in_one_pass(store, query, groups, None), groups)
            return _told(_by_kinds(store, wanted, groups), groups)
        except OperationFailure as error:
            if error.code != _SNAPSHOT_UNAVAILABLE or not tries_left:
                raise
            sleep(_PAUSE_SECONDS)
    raise AssertionError  # the last try has returned or raised


Wanted = Mapping[str, Collection[Any]]


def of_kinds(query: Mapping[str, Any]) -> dict[str, set[Any]] | None:
    """The values that a filter allows, by field, where it asks for fields of KINDS alone."""
    allowed: dict[str, set[Any]] = {}
    for name, condition in query.items():
        if name == "$and":
            parts = [of_kinds(part) for part in condition]
        elif name in KINDS:
            values = condition.get("$in") if _is_in(condition) else [condition]
            simple = all(isinstance(value, str) for value in values or ())
            parts = [{name: set(values)} if values is not None and simple else None]
        else:
            return None
        for part in parts:
            if part is None:
                return None
            for field, values in part.items():
                allowed[field] = allowed[field] & values if field in allowed else values
    return allowed


def _is_in(condition: Any) -> bool:
    return isinstance(condition, Mapping) and condition.keys() == {"$in"}


Counts = list[tuple[Mapping[str, Any], int]]


def _told(counts: Counts, groups: Sequence[str]) -> Document:
    answer: Document = {"count": sum(count for _, count in counts)}
    for name in groups:
        tag = name.removeprefix(TAGS) if name.startswith(TAGS) else None
        by = answer.setdefault("by_tag", {}) if tag else answer
        counted = by.setdefault(tag or f"by_{name}", {})
        for values, count in counts:
            value = values.get(name)
            if value is not None:
                counted[value] = counted.get(value, 0) + count
    return answer


def _in_one_pass(
    store: Store, query: Mapping[str, Any], groups: Sequence[str], hint: str | None
) -> Counts:
    names = {f"g{place}": name for place, name in enumerate(groups)}
    by = {short: f"${name}" for short, name in names.items()}
    group = {"$group": {"_id": by, "count": {"$sum": 1}}}
    pipeline = [{"$match": dict(query)}, group, {"$limit": GROUPS_MAX + 1}]
    found = _snapshot(store, {"pipeline": pipeline}, None, hint)
    if len(found.rows) > GROUPS_MAX:
        message = f"by: more than {GROUPS_MAX} different groups: ask for fewer, or narrow `where`"
        raise BanyanError("bad_request", message)
    return [
        ({names[short]: value for short, value in row["_id"].items()}, row["count"])
        for row in found.rows
    ]


# --- By the index -------------------------------------------------------------------------


def _by_kinds(store: Store, wanted: Wanted, groups: Sequence[str]) -> Counts:
    named = {*groups, *wanted}
    cuts = {str(state): _cut(named, state) for state in State}
    kinds = list(islice(_kinds(store, wanted.get("owner"), cuts), KINDS_MAX + 1))
    if len(kinds) > KINDS_MAX:
        query = {name: {"$in": sorted(values)} for name, values in wanted.items()}
        return _in_one_pass(store, {"owner": {"$gte": ""}, **query}, groups, INDEX)
    chosen = [one for one in kinds if _is_wanted(one[0], wanted)]

    def count(own: Context, one: tuple[Kind, Any]) -> int:
        return own.run(counted, *one)

    def counted(kind: Kind, time: Any) -> int:
        query = {name: value for name, value in kind._asdict().items() if value is not None}
        pipeline = [{"$match": query}, {"$group": {"_id": None, "count": {"$sum": 1}}}]
        rows = _snapshot(store, {"pipeline": pipeline}, time, INDEX).rows
        return int(rows[0]["count"]) if rows else 0

    with ThreadPoolExecutor(_COUNTED_AT_ONCE, thread_name_prefix="count") as pool:
        # What limits this request in time holds there, too.
        counts = list(pool.map(count, [copy_context() for _ in chosen], chosen))
    return [(kind._asdict(), count) for (kind, _), count in zip(chosen, counts, strict=True)]


def _cut(named: Collection[str], state: State) -> int:
    """How many fields of KINDS tell apart what is asked for; of one state alone has an outcome."""
    if state == State.TERMINATED and "outcome" in named:
        return 4
    return 3 if "queue" in named else 2


def _is_wanted(kind: Kind, wanted: Wanted) -> bool:
    values = kind._asdict()
    return all(values[name] in allowed for name, allowed in wanted.items())


def _kinds(
    store: Store, owners: Collection[str] | None, cuts: Mapping[str, int]
) -> Iterator[tuple[Kind, Any]]:
    """The kinds of task that there are, and the time of the snapshot: one seek for each kind.

    cuts: for each state, how many fields tell its kinds apart.
    """
    time = None
    for owner in [None] if owners is None else sorted(owners):
        least: list[Any] = [MinKey() if owner is None else owner, *[MinKey()] * 3]
        while True:
            found = _snapshot(store, _seek(least), time, INDEX, "find")
            time = found.time
            row = found.rows[0] if found.rows else None
            if row is None or (owner is not None and row["owner"] != owner):
                break
            values = [row["owner"], row["state"], row["queue"], row.get("outcome")]
            cut = cuts[row["state"]]
            yield Kind(*values[:cut], *[None] * (4 - cut)), time
            # Behind all that is alike so far.
            least = [*values[:cut], *[MaxKey()] * (4 - cut)]
            if cut == 4:
                least[3] = (values[3] or "") + "\0"


def _seek(least: Sequence[Any]) -> Document:
    return {
        "min": dict(zip(KINDS, least, strict=True)),
        "sort": dict.fromkeys(KINDS, 1),
        "projection": {"_id": 0, **dict.fromkeys(KINDS, 1)},
        "limit": 1,
        "singleBatch": True,
    }


class _Read(NamedTuple):
    rows: list[Document]
    time: Any


def _snapshot(
    store: Store, what: Mapping[str, Any], time: Any, hint: str | None, verb: str = "aggregate"
) -> _Read:
    """Rows as of a moment; left out: of now, which is told."""
    command: Document = {verb: "tasks", **what}
    command["readConcern"] = {"level": "snapshot", **({"atClusterTime": time} if time else {})}
    if verb == "aggregate":
        command["cursor"] = {"batchSize": 100_000}
    if hint:
        command["hint"] = hint
    cursor = store.database.command(command)["cursor"]
    rows = list(cursor["firstBatch"])
    while cursor["id"]:
        more = {"getMore": cursor["id"], "collection": "tasks", "batchSize": 100_000}
        following = store.database.command(more)["cursor"]
        rows += following["nextBatch"]
        cursor = {**cursor, "id": following["id"]}
    return _Read(rows, cursor.get("atClusterTime"))
