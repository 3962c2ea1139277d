"""What has had its time goes, a batch at a time, in the background.

Upkeep takes one step after another of a round, for a share of each second, and begins the
next round after a pause. A round may end anywhere: all that is remembered from one step to
the next is how far it has come, and the next round finds what is left.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from time import monotonic

from bson import ObjectId

from banyan.config import knobs
from banyan.domain.retention import Output, Rules, is_over, surplus
from banyan.server import keeping, represent
from banyan.server.calls import Context
from banyan.server.store import ageing, forgetting
from banyan.server.store.mongo import Document, Store, now

BATCH = 200  # of tasks: who links tasks or retries them waits for the removal of so many
NEIGHBOURS = 50_000  # of those that are looked at and removed together
SHARE = 0.25  # of the time, at the most, while there is something to do
BEHIND_SHARE = 0.75  # where a round takes longer than it is to the next
_ENOUGH = 0.95  # of the bytes that output may have: so far it is brought down
_ALL_AGAIN_SECONDS = 86_400.0  # samples of attempts that had not ended when they were passed

Steps = Iterator[bool]  # True after each step


class Retention:
    """`work(context)` for a little; called again and again by one thread."""

    def __init__(self) -> None:
        self._round: Steps | None = None
        self._next_round = 0.0
        self._thinned: ObjectId | None = None  # so far the samples of attempts are thin
        self._all_again = 0.0

    def work(self, context: Context) -> None:
        """Go on with the round, for the share of a period that it may take."""
        began = monotonic()
        if self._round is None and began >= self._next_round:
            self._next_round = began + knobs().RETENTION_SECONDS
            self._round = self._steps(context)
        share = SHARE if began < self._next_round else BEHIND_SHARE
        while self._round:
            if not next(self._round, False):
                self._round = None
            if monotonic() - began >= share * knobs().UPKEEP_SECONDS:
                break

    def _steps(self, context: Context) -> Steps:
        rules = keeping.rules()
        last = forgetting.clear_rest(context.store)
        while last:
            yield True
            last = forgetting.clear_rest(context.store, last)
        for range_ in _ranges(context.store, rules):
            yield from _tasks(context, range_, rules)
        yield from _output(context.store)
        yield from self._samples(context.store)
        if isinstance(rules.default, int):
            ageing.forget_workers(context.store, rules.default)
        if knobs().ACCOUNT_WORKERS_MAX:
            ageing.forget_surplus_workers(context.store, knobs().ACCOUNT_WORKERS_MAX)

    def _samples(self, store: Store) -> Steps:
        if monotonic() >= self._all_again:
            self._all_again = monotonic() + _ALL_AGAIN_SECONDS
            self._thinned = None
        range_ = ageing.made_before(int(knobs().SAMPLES_WHOLE_SECONDS * 1000))
        while range_:
            last = ageing.thin_samples(
                store, range_, self._thinned, BATCH, knobs().SAMPLES_THINNED_MAX
            )
            if last is None:
                break
            self._thinned = last
            yield True


def _ranges(store: Store, rules: Rules) -> Iterator[Document]:
    """Where to look for tasks whose time is over, by what their ids and marks tell."""
    times = {time: ageing.made_before(time) for time in ageing.own_times(store)}
    yield from ({"forget_after": time, **range_} for time, range_ in times.items() if range_)
    if isinstance(rules.default, int):
        range_ = ageing.made_before(rules.default)
        if range_:
            yield range_
    yield ageing.made_ahead()


def _tasks(context: Context, range_: Mapping[str, object], rules: Rules) -> Steps:
    """Forget what is over in a range of tasks, those that cannot go yet aside."""

    def choose(found: forgetting.Tasks, hanging: forgetting.Hanging) -> list[ObjectId]:
        over = [task["_id"] for task in found.values() if is_over(task, rules, now())]
        kept = hanging(over)
        return [task_id for task_id in over if task_id not in kept]

    after = None
    while batch := ageing.tasks_in_order(context.store, range_, after, BATCH):
        after = batch[-1]["_id"]
        pieces = list(_pieces([task for task in batch if is_over(task, rules, now())]))
        for over in pieces or [[]]:
            # Looked at first: a transaction that finds nothing to do would hold others up.
            if over and forgetting.would_go(context.store, over, choose):
                gone = forgetting.remove(context.store, over, choose)
                forgetting.clear(context.store, gone)
                represent.announce(context, [{"_id": task_id} for task_id in gone])
            yield True
    yield True  # there may be thousands of ranges, and nothing in them


def _pieces(tasks: list[Document]) -> Iterator[list[ObjectId]]:
    """Tasks that have so many neighbours together; one may have more."""
    piece: list[ObjectId] = []
    count = 0
    for task in tasks:
        count += task["neighbour_count"]
        if piece and count > NEIGHBOURS:
            yield piece
            piece, count = [], task["neighbour_count"]
        piece.append(task["_id"])
    if piece:
        yield piece


def _output(store: Store) -> Steps:
    """While there is too much output, who has most of it loses its oldest first.

    Never that of a running attempt. Two passes over the attempts that have output: the first
    sums it up by owner, the second removes.
    """
    most = knobs().LOGS_TOTAL_BYTES_MAX
    excess = ageing.logs_bytes(store) + ageing.large_records_bytes(store) - most
    if excess <= 0:
        return
    owners: dict[str, Output] = defaultdict(Output)
    for found in _with_output(store):
        for one in found:
            owners[one.owner].total += one.size
            owners[one.owner].removable += one.size if one.ended else 0
        yield True
    left = surplus(owners, excess + int(most * (1 - _ENOUGH)))
    for found in _with_output(store):
        going = []
        for one in found:
            if one.ended and left.get(one.owner, 0) > 0:
                going.append(one.attempt)
                left[one.owner] -= one.size
        ageing.remove_output(store, going)
        yield True
        if max(left.values(), default=0) <= 0:
            break


def _with_output(store: Store) -> Iterator[list[ageing.OutputOf]]:
    after = None
    while batch := ageing.attempts_with_output(store, after, BATCH):
        after = batch[-1]
        yield ageing.outputs(store, batch)
    looked_at = None if ageing.large_records_bytes(store) else ageing.END
    while looked_at != ageing.END:
        looked_at, large = ageing.large_records(store, looked_at, BATCH)
        yield large
