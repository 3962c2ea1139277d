"""What a client reads part by part goes on and has an end, whatever a false server says."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from banyan.client import paging
from banyan.client.api import Client
from banyan.client.watching import Watch
from banyan.errors import BanyanError
from tests.client.scripted import Reply, Scripted, scripted_server

ID = "5" * 24
# So many requests are more than any of these lists or outputs takes.
REQUESTS_MAX = 50


@contextmanager
def answering(answer: Callable[[dict[str, str], int], Reply]) -> Iterator[tuple[Client, Scripted]]:
    """A server that answers by what it is asked for, and its number; a client of it."""
    with scripted_server() as scripted:

        class Replies(list[Reply]):
            def __len__(self) -> int:
                return 2

            def pop(self, place: Any = 0) -> Reply:
                number = len(scripted.asked)
                assert number <= REQUESTS_MAX, "it reads for ever"
                asked = parse_qs(urlsplit(scripted.asked[-1].path).query)
                return answer({name: values[0] for name, values in asked.items()}, number)

        scripted.replies = Replies()
        with Client(scripted.url, "t", retry_seconds=0) as client:
            yield client, scripted


def page(number: Any, size: Any, count: int) -> Reply:
    items = [{"_id": f"{one:024x}"} for one in range(count)]
    body = {"_items": items, "_meta": {"page": number, "max_results": size}}
    return 200, {}, json.dumps(body).encode()


def refused(work: Callable[[], Any]) -> None:
    with pytest.raises(BanyanError, match="not answer like a Banyan server") as error:
        work()
    assert error.value.word == "unavailable"


@pytest.mark.parametrize(
    ("number", "size", "count"),
    [
        (1, 1, 1000),  # more than a page has
        (1, 1000, 1000),  # the first one again and again
        (0, 1000, 1000),
        (-1, 1000, 1000),
        (10**30, 1000, 1000),
        (1, 1, 1),
        (1, 0, 0),
        (1, -1, 0),
        (1, 10**9, 1000),
        ("1", 1000, 1000),
        (1, "1000", 1000),
        (1.0, 1000, 1000),
        (True, True, 1),
        (None, None, 1000),
    ],
)
def test_a_page_is_the_one_that_was_asked_for(number: Any, size: Any, count: int) -> None:
    with answering(lambda asked, turn: page(number, size, count)) as (client, _):
        refused(lambda: list(client.find()))


def test_a_list_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "FOUND_MAX", 10_000)
    with answering(lambda asked, turn: page(int(asked["page"]), 1000, 1000)) as (client, scripted):
        refused(lambda: list(client.find()))
        assert len(scripted.asked) == 11


def test_pages_of_large_items_go_on_where_the_last_one_ended() -> None:
    """The second page is answered as a smaller one, which begins at the same place."""

    def answer(asked: dict[str, str], turn: int) -> Reply:
        if asked["page"] == "2" and asked["max_results"] == "1000":
            return page(11, 100, 100)
        last = asked == {"page": "12", "max_results": "100"}
        return page(int(asked["page"]), int(asked["max_results"]), 40 if last else 1000)

    with answering(answer) as (client, scripted):
        assert len(list(client.find())) == 1000 + 100 + 40
        assert len(scripted.asked) == 3


def test_of_named_tasks_there_are_no_more_than_were_named() -> None:
    def endless(asked: dict[str, str], turn: int) -> Reply:
        size = int(asked["max_results"])
        return page(int(asked["page"]), size, size)

    with answering(endless) as (client, _):
        assert len(list(Watch(client, "a", "5" * 24).look([ID, "6" * 24]))) == 2


def log(data: bytes, offset: Any, **more: str) -> Reply:
    names = {"More": "true", "Attempt": "1", "Next-Offset": str(offset), "Complete": "false"}
    headers = {f"Banyan-Log-{name}": value for name, value in {**names, **more}.items()}
    return 200, headers, data


@pytest.mark.parametrize("offset", [0, -1, "", "x", "9" * 5000, "\u0663"])
def test_an_output_goes_on(offset: Any) -> None:
    name = str(offset).encode().decode("latin-1")
    with answering(lambda asked, turn: log(b"x", name)) as (client, _):
        refused(lambda: client.log(ID))
        refused(lambda: list(client.follow(ID, attempt=1)))


def test_so_it_does_where_a_part_of_it_is_empty() -> None:
    with answering(lambda asked, turn: log(b"", 5)) as (client, _):
        refused(lambda: client.log(ID))


def test_it_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "OUTPUT_BYTES_MAX", 10)
    with answering(lambda asked, turn: log(b"xxx", 3 * turn)) as (client, scripted):
        refused(lambda: client.log(ID))
        assert len(scripted.asked) == 4


def test_who_follows_it_reads_on_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "OUTPUT_BYTES_MAX", 10)
    with answering(lambda asked, turn: log(b"xxx", 3 * turn)) as (client, _):
        followed = client.follow(ID, attempt=1)
        assert b"".join(itertools.islice(followed, 20)) == b"xxx" * 20


@pytest.mark.parametrize("count", [10**18, -1, "7", 1.5, True])
def test_a_task_has_had_as_many_attempts_as_it_can_have(count: Any) -> None:
    body = json.dumps({"_id": ID, "state": "running", "attempt_count": count}).encode()
    with answering(lambda asked, turn: (200, {}, body)) as (client, _):
        refused(lambda: list(client.follow(ID)))


def test_who_waits_keeps_what_it_waits_for() -> None:
    """And not what else a server names as ended, each time something new."""

    def answer(asked: dict[str, str], turn: int) -> Reply:
        others = [{"_id": f"{turn:012x}{one:012x}", "state": "terminated"} for one in range(100)]
        state = "terminated" if turn == 20 else "running"
        items = [*others, {"_id": ID, "state": state}]
        asks_for_ends = '"state":{"$in"' in asked["where"].replace(" ", "")
        shown = others if asks_for_ends and state == "running" else items
        return 200, {"ETag": f'"{turn}"'}, json.dumps({"_items": shown, "_meta": {}}).encode()

    told: list[int] = []
    with answering(answer) as (client, _):
        (ended,) = client.wait([ID], on_change=lambda count, total: told.append(count))
    assert ended["_id"] == ID
    assert set(told) == {0, 1}
