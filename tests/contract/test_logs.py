"""The output of attempts: what a worker sends comes back as it was, while it runs and after."""

import random
import time
import uuid

import pytest

from tests.contract.playing import Item, Play, Player, at_once, chunk, word
from tests.harness import Server


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def held(play: Play) -> tuple[Player, str, Item]:
    """A worker and the one task that it holds; it may be tried twice."""
    (task,) = play.submit(max_attempt_count=2)
    player = play.player()
    (item,) = player.claim(1)
    return player, task, item


Held = tuple[Player, str, Item]
NOW = "2026-11-22T06:51:14.123Z"


def test_a_log_is_text_both_streams_in_the_order_in_which_they_came(play: Play, held: Held):
    player, task, item = held
    parts = [(b"one\n", "stdout"), (b"two\n", "stderr"), (b"three\n", "stdout")]
    offset = 0
    for data, stream in parts:
        assert player.report(item, log=[chunk(offset, data, stream)]).status_code == 200
        offset += len(data)
    log = play.server.provider.get(f"tasks/{task}/log")
    assert log.headers["Content-Type"].startswith("text/plain")
    assert log.content == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("stream", "expected"), [("stdout", b"one\nthree\n"), ("stderr", b"two\n")]
)
def test_a_stream_may_be_picked(play: Play, held: Held, stream: str, expected: bytes):
    player, task, item = held
    log = [chunk(0, b"one\n"), chunk(4, b"two\n", "stderr"), chunk(8, b"three\n")]
    player.report(item, log=log)
    assert play.server.provider.get(f"tasks/{task}/log", stream=stream).content == expected


def test_an_answer_is_no_output(play: Play, held: Held):
    """What a callable gives back; it is read by its name only."""
    player, task, item = held
    log = [chunk(0, b"one\n"), chunk(4, b"\x80packed", "answer"), chunk(11, b"two\n", "stderr")]
    assert player.report(item, log=log).status_code == 200
    whole = play.server.provider.get(f"tasks/{task}/log")
    assert whole.content == b"one\ntwo\n"
    assert whole.headers["Banyan-Log-Next-Offset"] == "15"
    assert play.server.provider.get(f"tasks/{task}/log", stream="answer").content == b"\x80packed"


def test_a_picked_stream_goes_on_where_the_last_answer_ended(play: Play, held: Held):
    player, task, item = held
    log = [chunk(0, b"one\n"), chunk(4, b"two\n", "stderr"), chunk(8, b"three\n")]
    got, offset = b"", 0
    for piece in log:
        player.report(item, log=[piece])
        answer = play.server.provider.get(f"tasks/{task}/log", stream="stdout", offset=offset)
        got += answer.content
        offset = int(answer.headers["Banyan-Log-Next-Offset"])
    assert (got, offset) == (b"one\nthree\n", 14)


def test_any_bytes_come_back_as_they_were(play: Play, held: Held):
    player, task, item = held
    data = random.Random(1).randbytes(1_000_000) + b"\0\xff\r\n"
    pieces = [(start, data[start : start + 65_536]) for start in range(0, len(data), 65_536)]
    player.report(item, log=[chunk(start, piece) for start, piece in pieces])
    assert play.server.provider.get(f"tasks/{task}/log").content == data


def test_an_offset_reads_from_any_byte_on(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"0123"), chunk(4, b"4567")])
    for offset, expected in ((0, b"01234567"), (2, b"234567"), (4, b"4567"), (7, b"7"), (8, b"")):
        log = play.server.provider.get(f"tasks/{task}/log", offset=offset)
        assert log.content == expected
        assert log.headers["Banyan-Log-Next-Offset"] == "8"


def test_an_offset_beyond_the_end_waits_there(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"0123")])
    log = play.server.provider.get(f"tasks/{task}/log", offset=100)
    assert (log.content, log.headers["Banyan-Log-Next-Offset"]) == (b"", "100")


def test_a_repeated_chunk_is_ignored(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"first")])
    assert player.report(item, log=[chunk(0, b"FIRST"), chunk(5, b" more")]).status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log").content == b"first more"
    (attempt,) = play.attempts(task)
    assert attempt["log_size_bytes"] == 10


def test_output_behind_a_gap_shows_when_the_gap_is_filled(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(5, b"later")])
    assert play.server.provider.get(f"tasks/{task}/log").content == b""
    player.report(item, log=[chunk(0, b"early")])
    assert play.server.provider.get(f"tasks/{task}/log").content == b"earlylater"


def test_each_attempt_has_its_own_log_and_the_latest_is_shown(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"first")])
    player.end(item, "failure (1)")
    get = play.server.provider.get
    assert get(f"tasks/{task}/log").headers["Banyan-Log-Attempt"] == "1"
    (again,) = player.claim(1)
    player.report(again, log=[chunk(0, b"second")])
    latest = get(f"tasks/{task}/log")
    assert (latest.content, latest.headers["Banyan-Log-Attempt"]) == (b"second", "2")
    assert get(f"tasks/{task}/log", attempt=1).content == b"first"
    assert get(f"tasks/{task}/log", attempt=3).status_code == 404


def test_a_task_that_was_never_tried_has_an_empty_log(play: Play):
    (task,) = play.submit()
    log = play.server.provider.get(f"tasks/{task}/log")
    assert (log.status_code, log.content) == (200, b"")
    assert log.headers["Banyan-Log-Attempt"] == "0"
    assert log.headers["Banyan-Log-Complete"] == "false"


def test_a_log_says_whether_it_is_complete(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"text")])
    get = play.server.provider.get
    assert get(f"tasks/{task}/log").headers["Banyan-Log-Complete"] == "false"
    end = {"exit_status": "success", "time_terminated": "2026-11-22T06:51:14Z"}
    player.report(item, "terminated", log=[chunk(4, b" end")], **end)
    log = get(f"tasks/{task}/log")
    assert (log.content, log.headers["Banyan-Log-Complete"]) == (b"text end", "true")


def test_a_log_that_has_not_changed_is_not_sent_again(play: Play, held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"text")])
    get = play.server.provider.get
    known = {"If-None-Match": get(f"tasks/{task}/log").headers["ETag"]}
    assert get(f"tasks/{task}/log", headers=known).status_code == 304
    assert get(f"tasks/{task}/log", headers=known, wait=0.2).status_code == 304
    player.report(item, log=[chunk(4, b" more")])
    changed = get(f"tasks/{task}/log", headers=known)
    assert (changed.status_code, changed.content) == (200, b"text more")


@pytest.mark.parametrize("what", ["output", "end", "claim"])
def test_a_request_that_waits_gets_what_is_new_at_once(play: Play, held: Held, what: str):
    player, task, item = held
    if what == "claim":
        player.end(item, "failure (1)")
    get = play.server.provider.get
    known = {"If-None-Match": get(f"tasks/{task}/log").headers["ETag"]}
    happens = {
        "output": lambda: player.report(item, log=[chunk(0, b"text")]),
        "end": lambda: player.end(item),
        "claim": lambda: player.report(player.claim(1)[0], log=[chunk(0, b"text")]),
    }[what]
    start = time.monotonic()
    log, _ = at_once([lambda: get(f"tasks/{task}/log", headers=known, wait=30), happens])
    assert log.status_code == 200
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": "-1"},
        {"offset": "1e3"},
        {"offset": "9" * 30},
        {"attempt": "first"},
        {"attempt": "٣"},
        {"stream": "stdin"},
        {"unknown": "1"},
    ],
)
def test_arguments_that_make_no_sense_are_refused(play: Play, wrong: dict[str, str]):
    (task,) = play.submit()
    answer = play.server.provider.get(f"tasks/{task}/log", **wrong)
    assert word(answer) == (400, "bad_request")


@pytest.mark.parametrize(
    "piece",
    [
        {"offset": -1, "stream": "stdout", "data": ""},
        {"offset": 2**60, "stream": "stdout", "data": ""},
        {"offset": 0.5, "stream": "stdout", "data": ""},
        {"offset": 0, "stream": "stdin", "data": ""},
        {"offset": 0, "stream": "stdout", "data": "not base64!"},
        {"offset": 0, "stream": "stdout", "data": 5},
        {"offset": 0, "stream": "stdout"},
        {"offset": 0, "data": ""},
    ],
)
def test_chunks_that_make_no_sense_are_refused(play: Play, held: Held, piece: Item):
    player, task, item = held
    assert word(player.report(item, log=[chunk(0, b"good"), piece])) == (422, "invalid")
    assert play.server.provider.get(f"tasks/{task}/log").content == b""


def test_an_empty_chunk_does_no_harm(play: Play, held: Held):
    player, task, item = held
    for piece in (chunk(0, b""), chunk(0, b"text"), chunk(4, b""), chunk(4, b" more")):
        assert player.report(item, log=[piece]).status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log").content == b"text more"


def test_somebody_elses_log_is_not_there(play: Play, held: Held):
    _, task, _ = held
    other = play.server.account("provider", name=uuid.uuid4().hex)
    assert word(other.get(f"tasks/{task}/log")) == (404, "not_found")
    assert play.server.operator.get(f"tasks/{task}/log").status_code == 200


def test_the_worker_that_holds_the_task_may_read_its_log(held: Held):
    player, task, item = held
    player.report(item, log=[chunk(0, b"text")])
    assert player.api.get(f"tasks/{task}/log").content == b"text"


# --- Where output is kept ---------------------------------------------------------------


def test_output_that_comes_with_the_end_follows_what_came_before(play: Play, held: Held):
    """It may be kept elsewhere; nobody sees that."""
    player, task, item = held
    assert player.report(item, log=[chunk(0, b"before\n")]).status_code == 200
    with_end = [chunk(7, b"last\n", "stderr"), chunk(12, b"words\n")]
    answer = player.report(
        item, "terminated", exit_status="success", time_terminated=NOW, log=with_end
    )
    assert answer.status_code == 200
    api = play.server.provider
    assert api.get(f"tasks/{task}/log").content == b"before\nlast\nwords\n"
    assert api.get(f"tasks/{task}/log?offset=9").content == b"st\nwords\n"
    assert api.get(f"tasks/{task}/log?stream=stderr").content == b"last\n"
    log = api.get(f"tasks/{task}/log?offset=18")
    assert (log.content, log.headers["Banyan-Log-Next-Offset"]) == (b"", "18")
    assert play.attempts(task)[0]["log_size_bytes"] == 18
    assert "output" not in play.attempts(task)[0]
    assert "output" not in api.get(f"tasks/{task}/current_attempt").json()["current_attempt"]


@pytest.mark.parametrize("before", [b"", b"some"])
@pytest.mark.parametrize("length", [1, 4096, 4097, 20_000])
def test_output_with_the_end_comes_back_whatever_its_length(
    play: Play, held: Held, before: bytes, length: int
):
    player, task, item = held
    data = random.Random(length).randbytes(length)
    if before:
        player.report(item, log=[chunk(0, before)])
    log = [chunk(len(before), data[:100]), chunk(len(before) + 100, data[100:])]
    end = {"exit_status": "failure (1)", "time_terminated": NOW}
    assert player.report(item, "terminated", **end, log=log).status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log?attempt=1").content == before + data


def test_output_that_is_sent_again_with_the_end_stands_once(play: Play, held: Held):
    """The worker did not hear that it had arrived."""
    player, task, item = held
    player.report(item, log=[chunk(0, b"once\n")])
    end = {"exit_status": "success", "time_terminated": NOW}
    again = [chunk(0, b"once\n"), chunk(5, b"more\n")]
    assert player.report(item, "terminated", **end, log=again).status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log").content == b"once\nmore\n"
