"""What reads text of strangers, one function each: whatever comes in, only these things come out.

Each takes bytes and fails with an AssertionError, or with an exception that a caller could not
expect. Run on generated input by `test_targets.py`, and by `scripts/fuzz` for as long as wanted.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from typing import Any, TypeVar

from bson import ObjectId

from banyan.config import knobs
from banyan.domain.fields import ResourceError
from banyan.domain.resources import normalise_capacity, normalise_request
from banyan.domain.retention import parse_queues
from banyan.domain.units import (
    LARGEST,
    format_bytes,
    format_duration,
    format_time,
    parse_bytes,
    parse_duration_milliseconds,
    parse_time,
)
from banyan.errors import BanyanError
from banyan.server import auth, queries, render
from banyan.server.asgi import wait_seconds
from banyan.server.bridge import heed_proxy
from banyan.server.refusals import Refusals
from banyan.server.schemas.tasks import SCHEMA
from banyan.worker.progress import ProgressLines
from banyan.worker.spool import chunks

T = TypeVar("T")
Target = Callable[[bytes], None]
SEAL = b"0123456789abcdef0123456789abcdef"
_MAY_STAND = {
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$all", "$and", "$or", "$nor",
    "$not", "$exists", "$size",
}  # fmt: skip


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def unless_refused(read: Callable[[], T], *statuses: int) -> T | None:
    """What is read; None where it is refused, which must be with one of these."""
    try:
        return read()
    except BanyanError as refusal:
        status = refusal.status
    assert status in statuses
    return None


def resources(data: bytes) -> None:
    """Normalised is normal: it is read again as it is, and holds nothing odd."""
    try:
        given = json.loads(text_of(data))
    except (ValueError, RecursionError):
        return
    for normalise in (normalise_request, normalise_capacity):
        try:
            made = normalise(given)  # type: ignore[operator]
        except ResourceError:
            continue
        assert normalise(made) == made  # type: ignore[operator]
        for number in _numbers(made):
            assert 0 <= number <= LARGEST
            assert math.isfinite(number)


def sizes(data: bytes) -> None:
    """Bytes."""
    try:
        size = parse_bytes(text_of(data))
    except ValueError:
        return
    assert 0 <= size <= LARGEST
    assert format_bytes(size)


def durations(data: bytes) -> None:
    """Milliseconds, and back again exactly."""
    try:
        milliseconds = parse_duration_milliseconds(text_of(data))
    except ValueError:
        return
    assert 0 <= milliseconds <= LARGEST
    assert parse_duration_milliseconds(format_duration(milliseconds)) == milliseconds


def times(data: bytes) -> None:
    """Dates, and back again."""
    try:
        time = parse_time(text_of(data))
    except ValueError:
        return
    assert time.tzinfo is UTC
    assert parse_time(format_time(time)) == time


def filters(data: bytes) -> None:
    """`where`: no operator but those that are known, wherever it stands."""
    query = unless_refused(lambda: queries.parse_where(text_of(data), SCHEMA), 400, 422)
    for key in _keys(query):
        assert not key.startswith("$") or key in _MAY_STAND, key
        assert "\0" not in key


def shown_fields(data: bytes) -> None:
    """`projection` and `sort`: fields of the schema only."""
    text = text_of(data)
    names = unless_refused(lambda: queries.parse_projection(text, set(), SCHEMA), 400, 422)
    order = unless_refused(lambda: queries.parse_sort(text, SCHEMA), 400, 422)
    for found in (names, order):
        for one in found or ():
            name = one if isinstance(one, str) else one[0]
            assert name.split(".")[0] in {*SCHEMA, *queries.AUTOMATIC}


def pages(data: bytes) -> None:
    """`page` and `max_results`."""
    said = {"page": text_of(data), "max_results": text_of(data)}
    page, count = unless_refused(lambda: queries.parse_page(said, 25, 99), 400) or (1, 1)
    assert 1 <= count <= 99
    assert page >= 1


def prefer(data: bytes) -> None:
    """The seconds of `Prefer: wait=`."""
    assert 0 <= wait_seconds(data.decode("latin-1")) <= knobs().WAIT_SECONDS_MAX


def tokens(data: bytes) -> None:
    """An attempt's token is worth something if, and only if, it was made here."""
    text = text_of(data)
    header = auth._token_in(text)
    assert header is None or isinstance(header, str)
    for token in (text, header):
        attempt = auth.attempt_of(SEAL, token)
        assert attempt is None or auth.attempt_token(SEAL, attempt) == token
    mine = ObjectId(data[:12].ljust(12, b"x"))
    assert auth.attempt_of(SEAL, auth.attempt_token(SEAL, mine)) == mine


def bodies(data: bytes) -> None:
    """A request's body: what is let through can be stored, and answered."""
    value = unless_refused(lambda: render.loads(data), 400, 422)
    assert render.loads(render.dumps(value)) == value


def proxies(data: bytes) -> None:
    """Whom a proxy speaks for."""
    said = data.decode("latin-1")
    environ: dict[str, Any] = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": said}
    heed_proxy(environ)
    assert environ["REMOTE_ADDR"]
    assert "," not in environ["REMOTE_ADDR"]
    Refusals(1).count(environ["REMOTE_ADDR"], "guess")


def retention(data: bytes) -> None:
    """Times of queues."""
    try:
        found = parse_queues(text_of(data))
    except ValueError:
        return
    assert all(time == "forever" or 0 <= int(time) <= 2**53 for time in found.values())


def output(data: bytes) -> None:
    """A spool that was cut or damaged, and lines that tell of progress, cut anywhere."""
    end = 0
    for chunk in chunks(data):
        assert chunk.offset == end
        end += len(chunk.data)
    assert end <= len(data)
    whole, pieces = ProgressLines(), ProgressLines()
    whole.feed(data)
    for start in range(0, len(data), 3):
        pieces.feed(data[start : start + 3])
    for one in (whole, pieces):
        one.finish()
    value = pieces.value or {}
    assert value.keys() <= {"done", "total", "message"}
    assert len(value.get("message", "")) <= 256


TARGETS: Mapping[str, Target] = {
    one.__name__: one
    for one in (
        resources, sizes, durations, times, filters, shown_fields, pages, prefer, tokens, bodies,
        proxies, retention, output,
    )
}  # fmt: skip


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value
