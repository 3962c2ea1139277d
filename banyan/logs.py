"""What Banyan's processes say of themselves: lines on standard error, for people or programs.

`begin` is called once by each process that serves: the supervisor, server processes, workers.
The others only use `logging`, and `about` to say what their lines are about. A token or a
password must never get into a line, whoever puts it there; nor a character that steers a
terminal, or makes a line look like two.
"""

import json
import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.printable import harmless

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_SECRETS = (
    (re.compile(r"\b(bny|att)_([0-9a-f]{1,24})_[A-Za-z0-9_-]+"), r"\1_\2_(hidden)"),
    # Both parts are bounded: otherwise the time would grow with the square of a line's length.
    (re.compile(r"(://[^\s:/@]{1,256}+:)[^\s@]{1,1024}+@"), r"\1(hidden)@"),
)
_PLAIN = re.compile(r"[^\s\"'=\\]+")
SAME_PER_SECOND = 10  # warnings and errors from one place in the code
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_about: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed


def begin(service: str, level: int, prefix: str) -> None:
    """From now on this process's lines go to standard error, as `LOG_FORMAT` says.

    level: what is said where `LOG_LEVEL` says nothing; prefix: of lines of text, in the
    style of `logging`. Errors: `usage` where one of the two knobs is not known.
    """
    chosen = _one_of("LOG_LEVEL", ("", *LEVELS))
    in_json = _one_of("LOG_FORMAT", FORMATS) == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json(service) if in_json else Text(prefix + "%(message)s"))
    handler.addFilter(Often())
    logging.basicConfig(level=chosen.upper() or level, handlers=[handler], force=True)
    threading.excepthook = lambda failed: logging.critical(
        "a thread failed", exc_info=failed.exc_value
    )
    if in_json:
        sys.excepthook = lambda *error: logging.critical("failed", exc_info=error)


def in_json() -> bool:
    """Whether this process has begun to say what it says as JSON."""
    return any(isinstance(one.formatter, Json) for one in logging.getLogger().handlers)


@contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Lines that are written within this say these facts, too."""
    token = _about.set({**_about.get(), **facts})
    try:
        yield
    finally:
        _about.reset(token)


class Often(logging.Filter):
    """Keeps the same complaint from filling the disk, whoever provokes it; tells what it left out.

    It counts by where in the code a line comes from. Lines below a warning are wanted one by one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._second = 0
        self._said: Counter[tuple[str, int]] = Counter()  # in this second
        self._left_out: Counter[tuple[str, int]] = Counter()  # since one was said

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is said. The handler's lock is not held yet: a count may be off by a few."""
        if record.levelno < logging.WARNING:
            return True
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._said.clear()
        place = (record.pathname, record.lineno)
        self._said[place] += 1
        if self._said[place] > SAME_PER_SECOND:
            self._left_out[place] += 1
            return False
        left_out = self._left_out.pop(place, 0)
        if left_out:
            record.left_out = left_out
        return True


class Json(logging.Formatter):
    """One JSON object a line: time, level, service, process, logger, event, and the facts."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        line = {
            "time": moment.isoformat(timespec="milliseconds") + "Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "process": record.process,
            "logger": record.name,
            "event": record.getMessage(),
            **facts_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(_hidden(line), ensure_ascii=False)
        return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class Text(logging.Formatter):
    """A line for people: the prefix, the event, and the facts as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end; what follows it is indented, so that it begins no line."""
        told = "".join(
            f" {harmless(name)}={harmless(_quoted(str(value)))}"
            for name, value in facts_of(record).items()
        )
        line, *rest = map(harmless, super().format(record).split("\n"))
        return _hide("\n    ".join([line + told, *rest]))


def _quoted(text: str) -> str:
    """As JSON where it could be taken for more than one fact."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the line is about: of `about`, and of its own `extra`."""
    own = {name: value for name, value in vars(record).items() if name not in _OWN}
    return {**_about.get(), **own}


def _hidden(value: Any) -> Any:
    """The value as JSON can hold it, without secrets wherever they stand."""
    if isinstance(value, Mapping):
        return {str(name): _hidden(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden(one) for one in value]
    return value if isinstance(value, int | float | None) else _hide(str(value))


def _hide(text: str) -> str:
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def _one_of(name: str, known: tuple[str, ...]) -> str:
    value: str = getattr(knobs(), name)
    if value not in known:
        told = ", ".join(filter(None, known))
        raise BanyanError("usage", f"BANYAN_{name}={value!r} is none of {told}")
    return value
