"""Bytes, durations and times, between what people write and what is stored.

The validator, the domain and the command line call this; it is the only place that knows the
spellings. It must never guess: what is not plainly one of the spellings is a ValueError whose
message says what is accepted.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction

LARGEST = 2**53  # bytes and milliseconds: up to here every whole number is exact everywhere

_NUMBER = r"[0-9]{1,19}(?:\.[0-9]{1,18})?"
# ASCII: without it "K" for kelvin and the long s would pass for k and s when case is ignored.
_FLAGS = re.ASCII | re.IGNORECASE

_BYTES = re.compile(rf"({_NUMBER}) ?([a-z]+)", _FLAGS)
_BYTES_IN = {
    "b": 1, "byte": 1, "bytes": 1,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50,
    # Without a B they are read as Slurm, ls and docker do: nobody gets less than was meant.
    "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15,
}  # fmt: skip
_BYTES_WANTED = (
    f'must be a whole number of bytes (0 to {LARGEST}), or text like "512 MiB", "8G" or "1.5 GB"'
)

_SPELLINGS_OF_MILLISECONDS = (
    (604_800_000, "w week weeks"),
    (86_400_000, "d day days"),
    (3_600_000, "h hr hrs hour hours"),
    (60_000, "m min mins minute minutes"),
    (1_000, "s sec secs second seconds"),
    (1, "ms millisecond milliseconds"),
)
_MILLISECONDS_IN = {
    name: size for size, names in _SPELLINGS_OF_MILLISECONDS for name in names.split()
}
_DURATION_PART = re.compile(rf"({_NUMBER}) ?([a-z]+)(?: (?=[0-9])|(?=[0-9])|\Z)", _FLAGS)
_ISO_DURATION = re.compile(
    rf"P(?=[0-9T])(?:({_NUMBER})W)?(?:({_NUMBER})D)?"
    rf"(?:T(?=[0-9])(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?",
    _FLAGS,
)
_CLOCK = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,9})?)")
_DURATION_WANTED = (
    f"must be a whole number of milliseconds (0 to {LARGEST}), "
    'or text like "10 minutes", "1h30m", "PT10M" or "00:10:00"'
)

_ISO_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?",
    _FLAGS,
)
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_HTTP_TIME = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{{1,2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:GMT|UTC)"
)
_TIME_WANTED = (
    'must be a time like "2026-11-22T10:00:00Z", "2026-11-22T11:00:00+01:00" '
    'or "Sun, 22 Nov 2026 10:00:00 GMT"'
)


def parse_bytes(value: object) -> int:
    """Bytes, from an integer or text like "1 GiB"; a broken byte of a larger unit counts whole."""
    if isinstance(value, str):
        match = _BYTES.fullmatch(value)
        if match is None:
            raise ValueError(_BYTES_WANTED)
        return _whole(_amount(match, _BYTES_IN, _BYTES_WANTED), _BYTES_WANTED)
    return _integer(value, _BYTES_WANTED)


def parse_duration_milliseconds(value: object) -> int:
    """Milliseconds, from an integer or text: "1h 30m", ISO 8601 ("PT10M") or clock "[d-]h:mm:ss".

    Years and months are refused, as they have no fixed length.
    """
    if not isinstance(value, str):
        return _integer(value, _DURATION_WANTED)
    if match := _ISO_DURATION.fullmatch(value):
        total = _sum_of(match, (604_800_000, 86_400_000, 3_600_000, 60_000, 1_000))
    elif match := _CLOCK.fullmatch(value):
        total = _sum_of(match, (86_400_000, 3_600_000, 60_000, 1_000))
    else:
        total = _spelled_duration(value)
    return _whole(total, _DURATION_WANTED)


def format_bytes(size: int) -> str:
    """For people: the largest binary unit, at most two decimals: "1.5 GiB"."""
    scale, unit = _unit_for(size)
    return f"{_in_unit(size, scale)} {unit}"


def share_of_bytes(part: int, whole: int) -> str:
    """Both in the unit of the whole: "0.5/23.5 GiB"."""
    scale, unit = _unit_for(whole)
    return f"{_in_unit(part, scale)}/{_in_unit(whole, scale)} {unit}"


def _unit_for(size: int) -> tuple[int, str]:
    sizes = ((2**50, "PiB"), (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
    # The rounded figure decides, so that one byte less than 1 GiB is not "1024 MiB".
    return next(
        (pair for pair in sizes if size >= 1024 and round(size / pair[0], 2) >= 1), (1, "B")
    )


def _in_unit(size: int, scale: int) -> str:
    return f"{size / scale:.2f}".rstrip("0").rstrip(".")


def format_duration(milliseconds: int) -> str:
    """For people, and exact: "1d 2h", "1h 30m", "2.5s", "500ms"; parses back to the same."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    parts = []
    rest = milliseconds
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        seconds, thousandths = divmod(rest, 1000)
        parts.append(f"{seconds}.{thousandths:03}".rstrip("0").rstrip(".") + "s")
    return " ".join(parts)


def parse_time(value: object) -> datetime:
    """A time in UTC, whole milliseconds, from ISO 8601 or RFC 1123 text or a datetime.

    Without an offset it is UTC; a date alone is its midnight.
    """
    try:
        if isinstance(value, datetime):
            time = value if value.tzinfo else value.replace(tzinfo=UTC)
        elif not isinstance(value, str):
            raise ValueError(_TIME_WANTED)
        elif match := _HTTP_TIME.fullmatch(value):
            day, month, year, hour, minute, second = match.groups()
            time = datetime(
                int(year), _MONTHS.index(month) + 1, int(day),
                int(hour), int(minute), int(second), tzinfo=UTC,
            )  # fmt: skip
        else:
            time = _iso_time(value)
        time = time.astimezone(UTC)
    except (ValueError, OverflowError) as problem:
        raise ValueError(_TIME_WANTED) from problem
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def format_time(time: datetime) -> str:
    """The one form of a time in answers: "2026-11-22T06:51:14.123Z"; naive times are UTC."""
    utc = time.astimezone(UTC) if time.tzinfo else time
    return utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _integer(value: object, wanted: str) -> int:
    """JSON has one kind of number, so 1024.0 is an integer; true is not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(wanted)
    return value


def _whole(amount: Fraction, wanted: str) -> int:
    """Rounded up: nobody gets less than what was asked for."""
    if amount > LARGEST:
        raise ValueError(wanted)
    return math.ceil(amount)


def _amount(match: re.Match[str], sizes: Mapping[str, int], wanted: str) -> Fraction:
    number, unit = match[1], match[2].lower()
    if unit not in sizes or (sizes[unit] == 1 and "." in number):
        raise ValueError(wanted)
    return Fraction(number) * sizes[unit]


def _sum_of(match: re.Match[str], sizes: tuple[int, ...]) -> Fraction:
    parts = zip(match.groups(), sizes, strict=True)
    return sum((Fraction(number or 0) * size for number, size in parts), Fraction(0))


def _spelled_duration(value: str) -> Fraction:
    """ "1h30m": each unit once, larger before smaller, so that a slip like "1h 5h" is told."""
    total, position, last_size = Fraction(0), 0, math.inf
    while position < len(value) or not value:
        match = _DURATION_PART.match(value, position)
        if match is None:
            raise ValueError(_DURATION_WANTED)
        total += _amount(match, _MILLISECONDS_IN, _DURATION_WANTED)
        size = _MILLISECONDS_IN[match[2].lower()]
        if size >= last_size:
            raise ValueError(_DURATION_WANTED)
        last_size, position = size, match.end()
    return total


def _iso_time(value: str) -> datetime:
    match = _ISO_TIME.fullmatch(value)
    if match is None:
        raise ValueError(_TIME_WANTED)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    microsecond = int(((fraction or "") + "000000")[:6])
    time = datetime(
        int(year), int(month), int(day),
        int(hour or 0), int(minute or 0), int(second or 0), microsecond, tzinfo=UTC,
    )  # fmt: skip
    return time - _offset(offset)


def _offset(text: str | None) -> timedelta:
    if text is None or text in "Zz":
        return timedelta(0)
    digits = text[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(_TIME_WANTED)
    size = timedelta(hours=hours, minutes=minutes)
    return -size if text[0] == "-" else size


def counted(amount: float, noun: str = "task") -> str:
    """`1 core`, `0.5 cores`, `2,927 tasks`."""
    text = f"{amount:,}" if isinstance(amount, int) else f"{amount:g}"
    return f"{text} {noun}{'' if amount == 1 else 's'}"
