"""Nobody writes lines of their own into a log, nor anything that steers a terminal."""

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from banyan import logs
from tests.harness import Server, eventually

EVIL = "x\n2026-01-01 CRITICAL banyan: FORGED\r\x1b]0;owned\x07\x7f\x85\x9b\u2028\u2029\u202e\udc80"
FORGED = "2026-01-01 CRITICAL banyan: FORGED"


def failed() -> Any:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        return type(error), error, error.__traceback__


def record(**more: Any) -> logging.LogRecord:
    made: dict[str, Any] = {"name": EVIL, "levelname": "INFO", "msg": "said %s", "args": (EVIL,)}
    return logging.makeLogRecord({**made, **more})


@pytest.mark.parametrize("form", [logs.Text("%(name)s %(message)s"), logs.Json("test")])
@pytest.mark.parametrize("exc_info", [None, failed()])
def test_no_character_of_a_stranger_steers(form: logging.Formatter, exc_info: Any) -> None:
    with logs.about(path=EVIL):
        text = form.format(record(exc_info=exc_info, told=EVIL, many=[EVIL, {EVIL: EVIL}]))
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith(FORGED) for line in text.split("\n"))
    assert not any(line[:1].strip() for line in text.split("\n")[1:])  # each is indented
    if isinstance(form, logs.Json):
        (line,) = text.split("\n")
        assert json.loads(line)["told"] == EVIL


def test_a_value_is_not_taken_for_several_facts() -> None:
    with logs.about(path='/a status=200 "x', plain="/tasks", empty=""):
        text = logs.Text("%(message)s").format(record(msg="said", args=()))
    assert text == r'said path="/a status=200 \"x" plain=/tasks empty=""'


@pytest.mark.parametrize("form", logs.FORMATS)
def test_nor_in_what_others_log_in_our_processes(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setattr("threading.excepthook", None)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(logs, "_one_of", lambda name, known: form if name == "LOG_FORMAT" else "")
    try:
        logs.begin("test", logging.WARNING, "%(levelname)s %(name)s: ")
        for name in ("uvicorn.error", "urllib3", "asyncio", "pymongo.topology", "x\ny"):
            logging.getLogger(name).error("%s", EVIL)
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    lines = stream.getvalue().splitlines()  # at each character that may look like an end
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith(FORGED) for line in lines)
    assert sum("FORGED" in line for line in lines) == 5


@pytest.mark.parametrize("form", logs.FORMATS)
def test_what_an_anonymous_caller_asks_for_is_on_one_line(
    serve: Callable[..., Server], form: str
) -> None:
    server = serve(LOG_LEVEL="info", LOG_FORMAT=form)
    path = f"/x%0a{FORGED.replace(' ', '%20')}%1b]0;owned%07%c2%9b%e2%80%ae?a=%0a{FORGED[:10]}"
    headers = {"X-Request-Id": f"x {FORGED}", "X-Evil": "\x9b"}
    server.anonymous.request("GET", path, headers=headers)
    server.anonymous.get("/last")
    eventually(lambda: "/last" in server.started.stderr)
    lines = server.started.stderr.splitlines()
    assert any("FORGED" in line for line in lines)
    assert not any(line.lstrip().startswith(FORGED) for line in lines)
    assert all(line.isprintable() for line in lines)
