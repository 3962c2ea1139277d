"""What the processes say on standard error: for people, or one JSON object a line; no secrets."""

import io
import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan import logs
from banyan.config import knobs
from banyan.errors import BanyanError
from banyan.server.bridge import call, request_id
from tests.e2e.stack import Stack
from tests.harness import Processes, Server, eventually

TOKEN = "bny_0123456789abcdef_not-really_a_token"
ATTEMPT = "att_0123456789abcdef01234567_a1b2c3"
URI = "mongodb://alice:hunter2@db.example.org/banyan"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., io.StringIO]]:
    """Begins to log in this process with these knobs, into what is returned."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setattr("threading.excepthook", None)

    def begin(**values: str) -> io.StringIO:
        for name, value in values.items():
            monkeypatch.setenv(f"BANYAN_{name}", value)
        knobs.cache_clear()
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        logs.begin("test", logging.INFO, "%(levelname)s ")
        return stream

    yield begin
    monkeypatch.undo()
    knobs.cache_clear()
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_line_of_json_says_when_who_and_what(logged: Any):
    stream = logged(LOG_FORMAT="json")
    with logs.about(request_id="r1"):
        logging.getLogger("banyan.x").warning("said %s", "so", extra={"task": 7})
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said.pop("process") > 1
    assert said == {
        "level": "warning", "service": "test", "logger": "banyan.x", "event": "said so",
        "request_id": "r1", "task": 7,
    }  # fmt: skip
    assert logs.in_json()


def test_a_line_of_text_says_the_same(logged: Any):
    stream = logged()
    with logs.about(request_id="r1"):
        logging.warning("said %s", "so", extra={"task": 7})
    assert stream.getvalue() == "WARNING said so request_id=r1 task=7\n"
    assert not logs.in_json()


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_line_holds_a_secret(logged: Any, form: str):
    stream = logged(LOG_FORMAT=form)
    try:
        raise ValueError(f"no database at {URI}")
    except ValueError:
        logging.exception("with %s", TOKEN, extra={"of": ATTEMPT, "all": [URI, TOKEN]})
    written = stream.getvalue()
    assert "ValueError" in written
    assert "0123456789abcdef" in written  # which one it was can be told
    for secret in ("hunter2", "not-really_a_token", "a1b2c3"):
        assert secret not in written


def test_how_much_is_said_is_a_knob_and_what_is_no_knob_is_refused(logged: Any):
    stream = logged(LOG_LEVEL="error")
    logging.warning("no")
    logging.error("yes")
    assert stream.getvalue() == "ERROR yes\n"
    for wrong in ({"LOG_LEVEL": "loud"}, {"LOG_LEVEL": "", "LOG_FORMAT": "xml"}):
        with pytest.raises(BanyanError, match="none of"):
            logged(**wrong)


def test_a_bug_is_logged_under_the_id_that_its_answer_has(logged: Any):
    stream = logged(LOG_FORMAT="json")

    def broken(environ: Any, start: Any) -> Any:
        raise ZeroDivisionError

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/tasks", "QUERY_STRING": "token=x"}
    answer = call(broken, environ, b"")
    said, told = (json.loads(line) for line in stream.getvalue().splitlines())
    assert dict(answer.headers)[b"x-request-id"].decode() == said["request_id"]
    assert "ZeroDivisionError" in said["exception"]
    assert (said["level"], said["method"], said["path"]) == ("error", "GET", "/tasks")
    assert (told["event"], told["status"], told["request_id"]) == (
        "answered", 500, said["request_id"],
    )  # fmt: skip


def test_a_callers_id_is_kept_if_it_is_one():
    assert request_id({"HTTP_X_REQUEST_ID": "a.B-9_"}) == "a.B-9_"
    for bad in ("", "a b", "a\nb", "x" * 65, "é"):
        made = request_id({"HTTP_X_REQUEST_ID": bad})
        assert made not in (bad, request_id({}))


def test_an_answer_says_the_id_that_it_was_asked_with(server: Server):
    asked = server.provider.get("tasks", headers={"X-Request-Id": "mine-7"})
    assert asked.headers["X-Request-Id"] == "mine-7"
    assert "X-Request-Id" not in server.provider.get("tasks").headers


def test_a_whole_stack_speaks_json(processes: Processes, tmp_path: Path):
    stack = Stack(processes, tmp_path, "--log-format", "json", LOG_LEVEL="info")
    stack.call("run", "--", "true")

    def services() -> set[str]:
        lines = [json.loads(one) for one in stack.started.stderr.splitlines()]
        assert all({"time", "level", "event", "service"} <= line.keys() for line in lines)
        assert not any("token" in str(line).lower().replace("token-file", "") for line in lines
                       if line["service"] != "worker")  # fmt: skip
        return {line["service"] for line in lines}

    eventually(lambda: {"server", "worker"} <= services(), 30)
    stack.started.signal(signal.SIGTERM)
    assert stack.started.wait(40) == 0
    assert "draining" in stack.started.stderr
    second = processes.banyan("up", "--data", str(tmp_path), "--log-format", "json",
                              environment={"BANYAN_RETAIN": "soon"})  # fmt: skip
    assert second.wait(30) == 2
    (line,) = second.stderr.splitlines()
    assert json.loads(line)["event"].startswith("BANYAN_RETAIN: ")
