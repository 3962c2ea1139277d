"""What people write on a command line, read: sizes, durations, pairs, cores, names of hosts.

Called by the commands. Errors always name the option.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time, timedelta

from banyan.addresses import HOST, HOST_LENGTH_MAX
from banyan.domain import variables
from banyan.domain.retention import FOREVER
from banyan.domain.units import (
    LARGEST,
    format_bytes,
    parse_bytes,
    parse_duration_milliseconds,
    parse_time,
)
from banyan.errors import BanyanError

EVERY_VARIABLE = "ALL"
_OF_BANYAN = "BANYAN_"
_OF_THE_SHELL = {"_", "PWD", "OLDPWD", "SHLVL"}
_BYTES_MEANT_MIN = 1024 * 1024
_DIGITS_MAX = 20  # of a number: more are too many in any case, and take long to read
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DAYS_AGO = {"today": 0, "yesterday": 1}
_CLOCK = re.compile(r"[0-9]:[0-9]")
_OFFSET = re.compile(r"(?::[0-9.]+(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)|GMT|UTC)\Z")


def program_name(command: str | Sequence[str]) -> str:
    """What a task is called that was given no name: its program, without the directory."""
    first = command.split() if isinstance(command, str) else command[0].split()
    return os.path.basename(first[0]) if first else ""


def size_bytes(text: str, option: str) -> int:
    """Bytes, from "64M", "1.5 GiB", "2GB" or a number of bytes.

    A number alone that is small was meant in another unit, as other queues have it: it is refused.
    """
    is_bytes = text.isascii() and text.isdecimal()
    try:
        size = parse_bytes(int(text) if is_bytes and len(text) < _DIGITS_MAX else text)
    except ValueError:
        message = f"{option} {text!r}: write a size like 512M, 8G, 1.5GiB or 2GB, or whole bytes"
        raise BanyanError("usage", f"{message}; at most {format_bytes(LARGEST)}") from None
    if is_bytes and 0 < size < _BYTES_MEANT_MIN:
        message = f"{option} {text}: these would be bytes; did you mean {text}M?"
        raise BanyanError("usage", f'{message} (really bytes: "{text} B")')
    return size


def duration_milliseconds(text: str, option: str, least: int = 0) -> int:
    """Milliseconds, from "10m", "1h30m", "00:10:00"; a bare number is seconds. `least`: of them."""
    try:
        time = parse_duration_milliseconds(f"{text}s" if _is_number(text) else text)
    except ValueError:
        message = f"{option} {text!r}: write a time like 90s, 10m, 1h30m, 1:30:00 or 2-00:00:00"
        raise BanyanError("usage", f"{message}; a number alone is seconds") from None
    if time < least:
        raise BanyanError("usage", f"{option} {text!r}: it is more than nothing; or leave it out")
    return time


def moment(text: str, option: str) -> datetime:
    """A time to come: after a delay ("10m"), at the next "22:30" here, or at a date and time.

    Without an offset a time is that of the clock on the wall here.
    """
    return _moment(text, f"{option} {text!r}: write a delay like 90s or 2h30m", later=True)


def time_ago(text: str, option: str) -> datetime:
    """A time that is over: so long ago ("10m"), at the last "22:30" here, at a date and time, or
    at the beginning of "today" or "yesterday".
    """
    begins = _DAYS_AGO.get(text)
    if begins is not None:
        midnight = datetime.combine(datetime.now().date() - timedelta(days=begins), time.min)
        return midnight.astimezone()
    wanted = f"{option} {text!r}: write how long ago, like 90m or 7d, today, yesterday"
    return _moment(text, wanted, later=False)


def _moment(text: str, wanted: str, later: bool) -> datetime:
    here = datetime.now().astimezone()
    if time_of_day := _TIME_OF_DAY.fullmatch(text):
        at = here.replace(hour=int(time_of_day[1]), minute=int(time_of_day[2]), second=0,
                          microsecond=0, tzinfo=None)  # fmt: skip
        is_later = at > here.replace(tzinfo=None)
        at += timedelta(days=(1 if later else -1) * (is_later is not later))
        return at.astimezone()
    try:
        if not _CLOCK.search(text):  # 8:00:00 could be either
            delay = parse_duration_milliseconds(f"{text}s" if _is_number(text) else text)
            return here + timedelta(milliseconds=delay if later else -delay)
    except (ValueError, OverflowError):
        pass
    try:
        return _with_zone_here(text, parse_time(text))
    except (ValueError, OverflowError, OSError):
        message = f"{wanted}, a time of day like 22:30"
        raise BanyanError("usage", f'{message}, or a date and time: "2026-12-31 08:00"') from None


def _with_zone_here(text: str, utc: datetime) -> datetime:
    return utc if _OFFSET.search(text) else utc.replace(tzinfo=None).astimezone()


def amounts(texts: Iterable[str], option: str) -> dict[str, float]:
    """`NAME=N` pairs: counted things."""
    found = {}
    for name, text in pairs(texts, option, "NAME=N").items():
        if not _is_number(text):
            raise BanyanError("usage", f"{option} {name}={text}: {text!r} is no number, 0 or more")
        found[name] = float(text)
    return found


def duration_seconds(text: str, option: str) -> float:
    """Seconds, from the same spellings."""
    return duration_milliseconds(text, option) / 1000


def retained(text: str) -> int | str:
    """Milliseconds for `retain`, from the same spellings, or "forever"."""
    return FOREVER if text == FOREVER else duration_milliseconds(text, "--retain")


def pairs(texts: Iterable[str], option: str, form: str = "KEY=VALUE") -> dict[str, str]:
    """`KEY=VALUE` pairs as a mapping; the last of equal keys wins."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise BanyanError("usage", f"{option} {text!r}: write it as {form}")
        found[key] = value
    return found


def environment(texts: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE`, `KEY` alone for its value here, or `ALL` for all that there is here."""
    spelled = []
    every: dict[str, str] = {}
    for text in texts:
        if "=" in text:
            spelled.append(text)
        elif text == EVERY_VARIABLE:
            every = _handed_on(os.environ)
        elif text in os.environ:
            spelled.append(f"{text}={os.environ[text]}")
        else:
            raise BanyanError("usage", f"--env {text}: there is no such variable here")
    return {**every, **pairs(spelled, "--env")}


def _handed_on(here: Mapping[str, str]) -> dict[str, str]:
    """Without what is Banyan's (tokens too), what a shell says of itself, and unreadable names."""
    return {
        name: value
        for name, value in here.items()
        if re.fullmatch(variables.NAME, name)
        and not name.startswith(_OF_BANYAN)
        and name not in _OF_THE_SHELL
    }


def cores(text: str) -> dict[str, object]:
    """Of `requested_resources`: a number of cores, or a share of the worker's like "50%"."""
    number = text.removesuffix("%")
    if not _is_number(number):
        raise BanyanError("usage", f"--cores {text!r}: write a number, or a share like 50%")
    if text.endswith("%"):
        return {"cpu_cores": {"percent": float(number)}}
    return {"cores": float(number)}


def host(text: str) -> str:
    """The name of a machine, as workers register under it."""
    if not re.fullmatch(HOST, text):
        made_of = f"letters, digits, '.', '_', ':' and (not first) '-', at most {HOST_LENGTH_MAX}"
        raise BanyanError("usage", f"--host {text!r}: it is made of {made_of}")
    return text


def _is_number(text: str) -> bool:
    return text.isascii() and text.replace(".", "", 1).isdecimal()
