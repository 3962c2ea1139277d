"""What a false server says to a command does not act on a terminal, and makes no traceback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from banyan.cli import main as cli
from banyan.errors import EXIT_BUG, EXIT_UNAVAILABLE
from tests.client.scripted import Scripted, scripted_server

EVIL = "\x1b]0;owned\x07\x9b2J\x7f\u202e\ud800"
TASK = {
    "_id": EVIL, "_status": EVIL, "state": EVIL, "name": EVIL, "token": EVIL, "host": EVIL,
    "mode": EVIL, "queues": [EVIL], "roles": [EVIL], "reason": EVIL, "outcome": EVIL,
    "causes": [{"cause": EVIL, "message": EVIL, "advice": EVIL,
                "parents": [{"_id": EVIL, "name": EVIL, "state": EVIL}]}],
    "count": 1, "running": 1, "by_state": {EVIL: 1}, "by_tag": {EVIL: {EVIL: 1}},
    "ended": {EVIL: 1}, "ended_per_second": 1, "window": {"from": EVIL}, "buckets": [],
    "truncated": True, "attempt_count": EVIL, "max_attempt_count": EVIL,
}  # fmt: skip
ANSWER = {**TASK, "_items": [TASK], "_meta": {"max_results": 25, "page": 1, "total": 1}}
ID = "5" * 24
LINES = [
    ["ls"], ["ls", "-q"], ["ls", "--json"], ["show", ID], ["show", "last"], ["explain", ID],
    ["submit", "true"], ["submit", "-q", "true"], ["submit", "--json", "true"],
    ["submit", "-q", "--array", "1-2", "true"],
    ["stats"], ["usage"], ["top", "--once"], ["worker", "list"], ["worker", "list", "-q"],
    ["worker", "drain", "x"], ["worker", "invite", "x"], ["account", "list"],
    ["account", "list", "-q"], ["account", "create", "x", "--role", "worker"],
    ["account", "revoke", "x"], ["progress", "--once", ID], ["wait", ID], ["cancel", ID],
    ["set", "--memory", "1G", ID], ["set", "--hold", ID], ["cancel", "--tag", "a=b"],
    ["submit", "--dedupe-key", "k", "--not-before", "1h", "true"],
    ["results", ID], ["results", "--json", ID], ["log", "--no-titles", "--tag", "a=b"],
    ["retry", ID], ["release", ID], ["forget", ID], ["run", "true"], ["log", "--tag", "a=b"],
    # What is looked up before a request is shown.
    ["cancel", "--curl", "last"], ["show", "--curl", "@x"], ["worker", "drain", "--curl", "x"],
    ["retry", "--curl", "last"], ["release", "--curl", "last"], ["forget", "--curl", "last"],
    ["log", "--curl", "last"], ["account", "revoke", "--curl", "x"],
]  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scripted]:
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "config.toml"))
    with scripted_server() as scripted:
        monkeypatch.setenv("BANYAN_URL", scripted.url)
        monkeypatch.setenv("BANYAN_TOKEN", "t")
        yield scripted


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_what_a_server_says_does_not_act_on_a_terminal(
    server: Scripted, capsys: pytest.CaptureFixture[str], line: list[str], status: int
) -> None:
    error = {"_error": {"word": "invalid", "message": EVIL}, "_issues": {EVIL: [EVIL]}}
    answer = ANSWER if status == 200 else {**ANSWER, **error}
    server.replies = [(status, {"ETag": '"1"'}, json.dumps(answer).encode())]
    cli.run(line)
    shown = capsys.readouterr()
    acts = {one for one in shown.out + shown.err if not one.isprintable()} - {"\n", "\t"}
    assert not acts, shown


DEEP = "[" * 900 + "]" * 900
WRONG = [
    "[]", "[1]", "null", "0", '"a"', "{}", '{"_items": 0}', '{"_items": [0]}', '{"_items": [[]]}',
    '{"_items": [{}]}', '{"_items": [], "_meta": []}',
    '{"_items": [], "_meta": {"max_results": 0}}',
    "[" * 200_000, DEEP, f'{{"_items": {DEEP}}}', f'{{"_id": {DEEP}, "state": {DEEP}}}',
    '{"_id": [], "state": {}, "causes": 1, "token": [], "by_state": [], "count": "a"}',
    '{"_error": {"word": []}}', '{"_error": []}', f'{{"_error": {{"message": {DEEP}}}}}',
    f'{{"_error": {{"word": "invalid", "message": ""}}, "_issues": {{"a": {DEEP}}}}}',
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_an_answer_of_the_wrong_shape_is_told_in_a_sentence(
    server: Scripted, capsys: pytest.CaptureFixture[str], line: list[str], status: int
) -> None:
    for wrong in WRONG:
        server.replies = [(status, {"ETag": '"1"'}, wrong.encode())]
        code = cli.run(line)  # raises what would be a traceback
        told = capsys.readouterr()
        if code in (EXIT_BUG, EXIT_UNAVAILABLE):
            assert "banyan: " in told.err
        if status != 200:
            assert code != 0


def test_where_an_answer_could_not_be_read_can_be_seen(
    server: Scripted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from banyan.config import knobs

    server.replies = [(200, {}, b'{"_id": "a", "state": "b"}')]
    assert cli.run(["explain", ID]) == EXIT_BUG
    told = capsys.readouterr().err
    assert "KeyError: 'causes'" in told
    assert "Traceback" not in told
    monkeypatch.setattr(knobs(), "LOG_LEVEL", "debug")
    assert cli.run(["explain", ID]) == EXIT_BUG
    assert "Traceback" in capsys.readouterr().err
