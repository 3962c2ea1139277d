"""`from`, `to`, `window` and `buckets` of a request for statistics -> a Window.

Called by the verbs that tell what was over time.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from banyan.domain.tallies import BUCKETS_MAX, WIDTHS, Window
from banyan.domain.units import parse_duration_milliseconds, parse_time
from banyan.errors import BanyanError
from banyan.server.store.mongo import now

ARGUMENTS = ("from", "to", "window", "buckets")
_WINDOW = timedelta(hours=24)
_BUCKETS = 24
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def read_window(
    args: Mapping[str, str], kept: Mapping[int, timedelta] | None = None
) -> Window | None:
    """The window that is asked for; None where none of ARGUMENTS is given.

    kept: for how long figures of each width are there; left out: all of them for ever.
    Errors: `bad_request`.
    """
    if not any(name in args for name in ARGUMENTS):
        return None
    time = now()
    end = min(time, _time(args, "to") or time)
    begin = _begin(args, end)
    if begin >= end:
        raise BanyanError("bad_request", "from: a time before `to`, and in the past")
    age = time - begin
    finest = next((one for one in WIDTHS if age <= kept[one]), WIDTHS[-1]) if kept else WIDTHS[0]
    return Window(begin, end, _buckets(args), finest)


def _begin(args: Mapping[str, str], end: datetime) -> datetime:
    begin = _time(args, "from")
    if begin is None:
        try:
            return max(_EARLIEST, end - (_duration(args) or _WINDOW))
        except OverflowError:
            return _EARLIEST
    if "window" in args:
        raise BanyanError("bad_request", "window: not together with `from`")
    return max(_EARLIEST, begin)


def _time(args: Mapping[str, str], name: str) -> datetime | None:
    if name not in args:
        return None
    try:
        return parse_time(args[name])
    except ValueError as problem:
        raise BanyanError("bad_request", f"{name}: {problem}") from None


def _duration(args: Mapping[str, str]) -> timedelta | None:
    text = args.get("window")
    if text is None:
        return None
    try:
        milliseconds = parse_duration_milliseconds(int(text) if _is_number(text) else text)
        if milliseconds <= 0:
            raise ValueError("must be longer than nothing")
        return timedelta(milliseconds=milliseconds)
    except (ValueError, OverflowError) as problem:
        raise BanyanError("bad_request", f"window: {problem}") from None


def _buckets(args: Mapping[str, str]) -> int:
    text = args.get("buckets", str(_BUCKETS))
    if not _is_number(text) or not 1 <= int(text) <= BUCKETS_MAX:
        raise BanyanError("bad_request", f"buckets: a whole number from 1 to {BUCKETS_MAX}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
