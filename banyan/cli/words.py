"""What people write on a command line, read: sizes, durations, pairs, cores, names of hosts.

Called by the commands. Errors always name the option.
"""

import os
import re
from collections.abc import Iterable, Sequence

from banyan.addresses import HOST, HOST_LENGTH_MAX
from banyan.domain.retention import FOREVER
from banyan.domain.units import parse_bytes, parse_duration_milliseconds
from banyan.errors import BanyanError


def program_name(command: str | Sequence[str]) -> str:
    """What a task is called that was given no name: its program, without the directory."""
    first = command.split() if isinstance(command, str) else command[0].split()
    return os.path.basename(first[0]) if first else ""


def size_bytes(text: str, option: str) -> int:
    """Bytes, from "1 GiB" or a number of bytes."""
    try:
        return parse_bytes(int(text) if text.isdecimal() else text)
    except ValueError as problem:
        raise BanyanError("usage", f"{option} {text!r} {problem}") from None


def duration_milliseconds(text: str, option: str) -> int:
    """Milliseconds, from "10 minutes", "1h30m", "00:10:00"; a bare number is seconds."""
    try:
        return parse_duration_milliseconds(f"{text}s" if _is_number(text) else text)
    except ValueError as problem:
        raise BanyanError("usage", f"{option} {text!r} {problem}") from None


def duration_seconds(text: str, option: str) -> float:
    """Seconds, from the same spellings."""
    return duration_milliseconds(text, option) / 1000


def retained(text: str) -> int | str:
    """Milliseconds for `retain`, from the same spellings, or "forever"."""
    return FOREVER if text == FOREVER else duration_milliseconds(text, "--retain")


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """`KEY=VALUE` pairs as a mapping; the last of equal keys wins."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise BanyanError("usage", f"{option} {text!r}: write it as KEY=VALUE")
        found[key] = value
    return found


def environment(texts: Iterable[str]) -> dict[str, str]:
    """`KEY=VALUE`, or `KEY` alone for its value here."""
    spelled = []
    for text in texts:
        if "=" in text:
            spelled.append(text)
        elif text in os.environ:
            spelled.append(f"{text}={os.environ[text]}")
        else:
            raise BanyanError("usage", f"--env {text}: there is no such variable here")
    return pairs(spelled, "--env")


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
    return text.replace(".", "", 1).isdecimal()
