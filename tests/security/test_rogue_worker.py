"""What a worker says of its own attempts: figures that cannot be, output without end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from banyan.domain.attempts import CORES_OF_A_MACHINE_MAX, believed
from banyan.domain.units import parse_time
from banyan.server.store.logs import SHORT_BYTES_MAX
from tests.contract.playing import Item, Play, at_once, chunk, held, word
from tests.contract.playing import play as play

CLAIMED = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NOW = CLAIMED + 60 * SECOND


def said(start: float | None = None, end: float | None = None) -> dict[str, Any]:
    """What is believed of these seconds after the claim, at NOW."""
    names = {"time_started": start, "time_terminated": end}
    times = {n: CLAIMED + at * SECOND for n, at in names.items() if at is not None}
    found = believed(times, {"claimed": CLAIMED}, NOW)
    return {name: (time - CLAIMED) / SECOND for name, time in found.items()}


@pytest.mark.parametrize(
    ("start", "end", "right"),
    [
        (1, 2, (1, 2)),
        (0, 60, (0, 60)),
        (None, 5, (None, 5)),
        (5, None, (5, None)),
        (3601, 3605, (56, 60)),  # a clock that is an hour ahead
        (-3601, -3597, (0, 4)),  # and one that is behind
        (-1e9, 1e9, (0, 60)),
        (5, 2, (5, 5)),
        (None, -1e9, (None, 0)),
        (None, 1e9, (None, 60)),
        (1e9, None, (60, None)),
        (1e9, -1e9, (60, 60)),
    ],
)
def test_times_lie_within_the_attempt(
    start: float | None, end: float | None, right: tuple[float | None, float | None]
):
    names = ("time_started", "time_terminated")
    assert said(start, end) == {n: at for n, at in zip(names, right, strict=True) if at is not None}


def test_an_end_does_not_come_before_the_start_that_was_told():
    holder = {"claimed": CLAIMED, "time_started": CLAIMED + 30 * SECOND}
    found = believed({"time_terminated": CLAIMED + SECOND}, holder, NOW)
    assert found == {"time_terminated": CLAIMED + 30 * SECOND}


def test_a_clock_of_another_server_that_is_behind_does_no_harm():
    found = believed({"time_terminated": NOW, "cpu_seconds": 1.0}, {"claimed": NOW}, CLAIMED)
    assert found == {"time_terminated": NOW, "cpu_seconds": 1.0}


def test_cpu_seconds_are_those_of_a_machine_at_most():
    holder = {"claimed": CLAIMED}
    assert (
        believed({"cpu_seconds": 1e12}, holder, NOW)["cpu_seconds"] == 61 * CORES_OF_A_MACHINE_MAX
    )
    assert believed({"cpu_seconds": 500.0}, holder, NOW) == {"cpu_seconds": 500.0}


# --- Through the server -------------------------------------------------------------------


@pytest.mark.parametrize("start", ["1970-01-01T00:00:00Z", "2090-01-01T00:00:00Z"])
@pytest.mark.parametrize("end", ["1970-01-01T00:00:00Z", "2090-01-01T00:00:00Z"])
@pytest.mark.parametrize("at_once", [True, False])
def test_figures_that_cannot_be_are_put_right(play: Play, start: str, end: str, at_once: bool):
    player, task, item = held(play)
    data = {"exit_status": "success", "time_terminated": end, "cpu_seconds": 1e12}
    if at_once:
        data["time_started"] = start
    else:
        assert player.report(item, time_started=start, cpu_seconds=1e12).status_code == 200
    assert player.report(item, "terminated", **data).status_code == 200
    (attempt,) = play.attempts(task)
    names = ("time_claimed", "time_started", "time_terminated")
    claimed, started, ended = (parse_time(attempt[name]) for name in names)
    assert claimed <= started <= ended <= datetime.now(UTC)
    assert attempt["cpu_seconds"] < 1e6


@pytest.fixture
def small(play: Play, serve: Any, fresh_database: str) -> tuple[Play, Any]:
    """A server that keeps 64 KiB of output of an attempt, and what it has stored."""
    server = serve(LOG_BYTES_MAX=65_536)
    return Play(server), MongoClient(fresh_database).get_default_database()


def stored(database: Any, item: Item) -> int:
    chunks = database["log_chunks"].find({"attempt": ObjectId(item["attempt_id"])})
    record = database["attempts"].find_one({"_id": ObjectId(item["attempt_id"])})
    return sum(len(one["data"]) for one in [*chunks, *record.get("output", ())])


def test_what_is_stored_of_the_output_is_bounded_however_it_lies(small: tuple[Play, Any]):
    play, database = small
    player, task, item = held(play)
    for offset in range(100):
        player.report(item, log=[chunk(offset, b"x" * 8192)])
    assert stored(database, item) <= 65_536
    log = [chunk(offset, b"y" * 4096) for offset in range(1000)]
    end = {"exit_status": "success", "time_terminated": "2026-11-22T06:51:14Z"}
    player.report(item, "terminated", log=log, **end)
    assert stored(database, item) <= 65_536 + SHORT_BYTES_MAX
    assert len(play.server.provider.get(f"tasks/{task}/log").content) <= 65_536


def test_many_reports_at_one_time_store_little_more(small: tuple[Play, Any]):
    play, database = small
    player, _, item = held(play)

    def say(first: int) -> int:
        for offset in range(first, 4000, 16):
            player.report(item, log=[chunk(offset, b"x" * 8192)])
        return first

    at_once([lambda first=first: say(first) for first in range(4)])
    assert stored(database, item) <= 65_536 + 4 * 8192


def test_pieces_that_overlap_in_the_record_of_an_end_are_left_out(small: tuple[Play, Any]):
    play, database = small
    player, _, item = held(play)
    log = [chunk(0, b"x" * size) for size in range(1, 4097)]
    end = {"exit_status": "success", "time_terminated": "2026-11-22T06:51:14Z"}
    assert player.report(item, "terminated", log=log, **end).status_code == 200
    assert stored(database, item) <= 4096


def test_output_up_to_the_bound_is_kept_and_may_be_sent_again(small: tuple[Play, Any]):
    play, database = small
    player, task, item = held(play)
    pieces = [chunk(offset, b"x" * 8192) for offset in range(0, 65_536, 8192)]
    for _ in range(3):
        for start in (0, 4):
            assert player.report(item, log=pieces[start : start + 4]).status_code == 200
    beyond = player.report(item, log=[chunk(65_536, b"beyond"), chunk(65_530, b"over it")])
    assert beyond.status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log").content == b"x" * 65_536
    assert stored(database, item) == 65_536


def test_nothing_is_stored_after_the_end(small: tuple[Play, Any]):
    play, database = small
    player, _, item = held(play)
    player.end(item)
    late = player.report(item, log=[chunk(0, b"late" * 3000)])
    assert word(late) == (409, "lease_lost")
    end = {"exit_status": "success", "time_terminated": "2026-11-22T06:51:14Z"}
    assert player.report(item, "terminated", log=[chunk(0, b"late" * 3000)], **end).ok
    assert stored(database, item) == 0
