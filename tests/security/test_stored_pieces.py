"""Output that comes in very many pieces: what is stored, and what it costs to read, is bounded."""

from collections.abc import Callable

import pytest
from bson import ObjectId
from pymongo import MongoClient

from banyan.client.api import Client
from banyan.server.store.logs import READ_CHUNKS_MAX, SHORT_CHUNKS_MAX
from tests.contract.playing import Item, Play, Player, chunk, held, now, word
from tests.contract.playing import play as play
from tests.harness import Server

PIECES = 2 * READ_CHUNKS_MAX + 10


def pieces(first: int, count: int) -> list[Item]:
    """Single bytes, now of the one stream, now of the other."""
    return [
        chunk(n, b"0123456789"[n % 10 : n % 10 + 1], ("stdout", "stderr")[n % 2])
        for n in range(first, first + count)
    ]


def talk(player: Player, item: Item, count: int) -> None:
    for first in range(0, count, 5_000):
        answer = player.report(item, log=pieces(first, min(5_000, count - first)))
        assert answer.status_code == 200, answer.text


def test_a_log_in_many_pieces_is_read_some_at_a_time(play: Play):
    player, task, item = held(play)
    talk(player, item, PIECES)
    player.end(item)
    found, offset, answers = b"", 0, 0
    while True:
        log = play.server.provider.get(f"tasks/{task}/log", offset=offset)
        assert len(log.content) <= READ_CHUNKS_MAX
        found, answers = found + log.content, answers + 1
        offset = int(log.headers["Banyan-Log-Next-Offset"])
        more = log.headers.get("Banyan-Log-More") == "true"
        assert more is (log.headers["Banyan-Log-Complete"] == "false")
        if not more:
            break
    assert found == b"0123456789" * (PIECES // 10)
    assert answers == 3


@pytest.mark.parametrize("stream", [None, "stdout", "stderr"])
def test_the_client_goes_on_to_its_end(play: Play, stream: str | None):
    player, task, item = held(play)
    talk(player, item, PIECES)
    player.end(item)
    step = slice({None: None, "stdout": 0, "stderr": 1}[stream], None, 2 if stream else 1)
    expected = (b"0123456789" * (PIECES // 10))[step]
    client = Client(play.server.url, play.server.tokens["provider"])
    assert client.log(task, stream=stream) == expected
    assert b"".join(client.follow(task, stream=stream)) == expected


def test_short_pieces_count_for_more_than_their_bytes(
    serve: Callable[..., Server], fresh_database: str
):
    play = Play(serve(LOG_BYTES_MAX=65_536))
    player, _, item = held(play)
    talk(player, item, 3_000)
    database = MongoClient(fresh_database).get_default_database()
    assert database["log_chunks"].count_documents({}) <= 65_536 // 128 + 2


def test_the_record_of_an_end_has_few(play: Play, module_database: str):
    player, task, item = held(play)
    end = {"exit_status": "success", "time_terminated": now()}
    count = 10 * SHORT_CHUNKS_MAX
    assert player.report(item, "terminated", log=pieces(0, count), **end).status_code == 200
    assert play.server.provider.get(f"tasks/{task}/log").content == b"0123456789" * (count // 10)
    (attempt,) = play.attempts(task)
    assert attempt["log_size_bytes"] == count
    database = MongoClient(module_database).get_default_database()
    record = database["attempts"].find_one({"_id": ObjectId(item["attempt_id"])})
    assert len(record.get("output", ())) <= SHORT_CHUNKS_MAX


def test_a_request_may_carry_so_many_in_all(play: Play):
    play.submit(20)
    player = play.player()
    items = player.claim(4)
    body = [
        {
            "_id": one["_id"],
            "update_execution_data": {"token": one["token"], "log": pieces(0, 3000)},
        }
        for one in items
    ]
    assert len(body) == 4
    assert word(player.api.patch("tasks", body)) == (413, "too_large")
    assert player.api.patch("tasks", body[:3]).status_code == 200
