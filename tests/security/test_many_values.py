"""Bodies that are short for what they hold: the memory of each value counts, not its two bytes."""

import json
from collections.abc import Callable
from unittest import mock

import orjson
import pytest

from banyan.errors import BanyanError
from banyan.server import render
from tests.server.worlds import World

# Each is made in its own test: they are large.
BODIES: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"[" + b"[]," * 5_000_000 + b"[]]",
    "objects": lambda: b"[" + b"{}," * 2_000_000 + b"{}]",
    "texts": lambda: b'["a"' + b',"b"' * 3_000_000 + b"]",
    "numbers": lambda: b"[0" + b",0" * 3_000_000 + b"]",
    "a text without an end": lambda: b"[0" + b",0" * 3_000_000 + b',"' + rb"\"" * 4_000_000,
}


@pytest.mark.parametrize("what", BODIES)
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(what: str) -> None:
    body = BODIES[what]()
    with mock.patch.object(render, "orjson") as parser, pytest.raises(BanyanError) as refused:
        render.loads(body)
    assert refused.value.word == "too_large"
    assert not parser.loads.called


def test_what_stands_in_texts_does_not_count() -> None:
    text = '[{,"\\' * 1_000_000
    assert render.loads(orjson.dumps({"text": text})) == {"text": text}
    assert render.loads(json.dumps([text, "\\"]).encode()) == [text, "\\"]


def test_as_many_as_a_request_may_need_are_taken() -> None:
    tasks = [{"command": ["a"] * 900, "tags": {}, "after": []}] * 1000
    assert len(render.loads(orjson.dumps(tasks))) == 1000


def test_who_sends_one_is_told(fresh_database: str) -> None:
    world = World(fresh_database)
    headers = {
        "Authorization": f"Bearer {world.tokens['alice']}",
        "Content-Type": "application/json",
    }
    answer = world.client.post("/tasks", data=BODIES["lists"](), headers=headers)
    assert (answer.status_code, answer.json["_error"]["word"]) == (413, "too_large")
    world.store.close()
