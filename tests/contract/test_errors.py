"""Contract §8: one shape for all errors, one status for each word, and never a 500."""

import http.client
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from banyan.errors import WORDS
from tests.contract.asking import Item, make, new_id, read, refused
from tests.contract.playing import Play
from tests.harness import Server

JSON = {"Content-Type": "application/json"}
SCRIPT = "<script>alert(1)</script>\u202e{{7*7}}\x1b]0;x\x07"


def raw(server: Server, method: str, target: str, body: bytes = b"", **headers: str) -> Any:
    """(status, headers, body) of a request that no client library would let pass."""
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        sent = {"Authorization": f"Bearer {server.tokens['provider']}", **JSON}
        sent |= {"Content-Length": str(len(body))}
        for name, value in {**sent, **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        sent_back = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, sent_back, answer.read()
    finally:
        connection.close()


# --- The shape -----------------------------------------------------------------------------


def test_an_error_is_json_with_code_word_and_message(server: Server):
    answer = server.provider.get(f"tasks/{new_id()}")
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"_status", "_error"}
    assert body["_error"].keys() == {"code", "word", "message"}
    refused(answer, 404, "not_found")


def test_an_invalid_request_has_issues_by_field(server: Server):
    assert refused(server.provider.post("tasks", {"priority": "x"}), 422)["priority"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("GET", "nothing", None, 404, "not_found"),
        ("GET", "tasks/1", None, 404, "not_found"),
        ("GET", "tasks/%00", None, 404, "not_found"),
        ("GET", "tasks/../../etc/passwd", None, 404, "not_found"),
        ("GET", "tasks/..%2f..%2fetc%2fpasswd", None, 404, "not_found"),
        ("GET", "tasks/ffffffffffffffffffffffff/log/..%2fx", None, 404, "not_found"),
        ("GET", "tasks/ffffffffffffffffffffffff/nothing", None, 404, "not_found"),
        ("GET", "tasks/ffffffffffffffffffffffff", None, 404, "not_found"),
        ("PATCH", "tasks/ffffffffffffffffffffffff", {}, 404, "not_found"),
        ("POST", "tasks/ffffffffffffffffffffffff/cancel", {}, 404, "not_found"),
        ("POST", "tasks/ffffffffffffffffffffffff/retry", {}, 404, "not_found"),
        ("GET", "tasks/ffffffffffffffffffffffff/log", None, 404, "not_found"),
        ("GET", "tasks/ffffffffffffffffffffffff/worker", None, 404, "not_found"),
        ("DELETE", "tasks", None, 405, "method_not_allowed"),
        ("PUT", "tasks", {}, 405, "method_not_allowed"),
        ("PUT", "tasks/ffffffffffffffffffffffff", {}, 405, "method_not_allowed"),
        ("DELETE", "tasks/ffffffffffffffffffffffff", None, 405, "method_not_allowed"),
        ("POST", "tasks/ffffffffffffffffffffffff", {}, 405, "method_not_allowed"),
        ("POST", "attempts", {}, 405, "method_not_allowed"),
        ("POST", "workers", {}, 403, "forbidden"),
        ("GET", "accounts", None, 403, "forbidden"),
        ("POST", "accounts", {}, 403, "forbidden"),
        ("POST", "tasks/cancel", {"targets": []}, 422, "invalid"),
        ("POST", "tasks/cancel", {"targets": "x"}, 422, "invalid"),
        ("POST", "tasks/cancel", {"targets": ["x"]}, 422, "invalid"),
        ("POST", "tasks/cancel", {"targets": ["ffffffffffffffffffffffff"]}, 422, "invalid"),
        ("POST", "tasks/cancel", {"targets": ["f" * 24] * 1025}, 413, "too_large"),
        ("POST", "tasks/cancel", [], 422, "invalid"),
        ("POST", "tasks/cancel", None, 422, "invalid"),
        ("POST", "tasks/retry", {"targets": ["f" * 24], "downstream": 1}, 422, "invalid"),
        ("POST", "tasks/retry", {"targets": ["f" * 24], "what": 1}, 422, "invalid"),
        ("POST", "tasks/claim", {}, 403, "forbidden"),
    ],
)
def test_each_refusal_has_its_status_and_word(
    server: Server, method: str, path: str, body: Any, status: int, word: str
):
    answer = server.provider.request(method, path, body)
    refused(answer, status, word)
    assert WORDS[word].status == status
    if status == 405:
        assert answer.headers["Allow"]


def test_every_word_has_one_status_and_one_exit_code():
    assert all(400 <= word.status <= 503 for word in WORDS.values())
    assert all(0 < word.exit_code < 256 for word in WORDS.values())


def test_405_says_what_is_allowed(server: Server):
    task = make(server.provider)
    for path, method, allowed in (
        ("tasks", "DELETE", {"GET", "POST", "PATCH"}),
        (f"tasks/{task['_id']}", "PUT", {"GET", "PATCH"}),
        (f"tasks/{task['_id']}/cancel", "GET", {"POST"}),
        (f"tasks/{task['_id']}/history", "POST", {"GET"}),
    ):
        answer = server.provider.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert set(re.split(", *", answer.headers["Allow"])) - {"HEAD", "OPTIONS"} == allowed


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer x", "Bearer bny_x_y", "Bearer bny_\udcff_x",
        "Token x", "Basic", "Basic x", "Basic eDp5", "Basic //4=", "Basic Ym55XwBfeA==",
        "Digest username=x",
    ],
)  # fmt: skip
def test_no_token_and_a_wrong_one_get_the_same_401(server: Server, header: str | None):
    known = server.anonymous.get("tasks")
    headers = {} if header is None else {"Authorization": header.encode("utf-8", "surrogateescape")}
    for path in ("tasks", "accounts", f"tasks/{new_id()}", ""):
        answer = server.anonymous.get(path, headers=headers)
        refused(answer, 401, "unauthenticated")
        assert answer.content == known.content
        assert answer.headers["WWW-Authenticate"]


def test_basic_with_the_token_as_user_name_is_as_good(server: Server):
    session = server.anonymous._session()
    answer = session.get(f"{server.url}/tasks", auth=(server.tokens["provider"], ""), timeout=60)
    assert answer.status_code == 200


# --- Bodies --------------------------------------------------------------------------------

BAD_BODIES = {
    "no JSON": b"{",
    "not quoted": b"{command: 1}",
    "single quotes": b"{'command': 'x'}",
    "trailing comma": b'{"command": "x",}',
    "two documents": b'{"command": "x"} {}',
    "form": b"command=x",
    "50,000 deep": b"[" * 50_000 + b"]" * 50_000,
    "50,000 deep object": b'{"tags":' * 50_000 + b"1" + b"}" * 50_000,
    "17 deep": b'{"env":' * 17 + b"{}" + b"}" * 17,
    "unclosed": b"[" * 100_000,
    "2^70": b'{"priority": 1180591620717411303424}',
    "1e400": b'{"retry_backoff": 1e400}',
    "-1e400": b'{"retry_backoff": -1e400}',
    "half a surrogate": b'{"name": "\\ud800"}',
    "not UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "NUL in a key": b'{"tags": {"a\\u0000b": "x"}}',
    "NUL in the name of a field": b'{"a\\u0000b": "x"}',
    "NUL byte": b'{"name": "a\x00"}',
    "NaN": b'{"priority": NaN}',
    "operator": b'{"$set": {"owner": "me"}}',
    "dotted": b'{"tags.a": "x"}',
    "numbers as keys": b'{1: "x"}',
    "lone NUL": b"\x00",
    "gzip": b"\x1f\x8b\x08\x00",
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_a_malformed_body_is_4xx_and_stores_nothing(server: Server, kind: str):
    task = make(server.provider)
    for method, path in (
        ("POST", "tasks"),
        ("PATCH", "tasks"),
        ("PATCH", f"tasks/{task['_id']}"),
        ("POST", "tasks/cancel"),
        ("POST", f"tasks/{task['_id']}/add_continuations"),
        ("POST", "tasks/add_continuations"),
    ):
        answer = server.provider.request(method, path, data=BAD_BODIES[kind], headers=JSON)
        if method == "PATCH" and path == "tasks" and answer.status_code == 207:
            continue
        assert 400 <= answer.status_code < 500, (method, path, answer.text[:500])
        refused(answer, answer.status_code)
    assert read(server.provider, task)["_etag"] == task["_etag"]


@pytest.mark.parametrize("path", ["tasks/claim", "tasks/steal", "tasks/release", "workers"])
@pytest.mark.parametrize("kind", [*BAD_BODIES, "null", "list", "text", "number", "empty"])
def test_a_malformed_body_of_a_worker_is_4xx(server: Server, path: str, kind: str):
    others = {"null": b"null", "list": b"[]", "text": b'"x"', "number": b"5", "empty": b""}
    body = {**BAD_BODIES, **others}[kind]
    answer = server.worker.post(path, data=body, headers=JSON)
    assert 400 <= answer.status_code < 500, answer.text[:500]
    refused(answer, answer.status_code)


def test_a_large_integer_is_kept_exactly(server: Server):
    task = make(server.provider, requested_resources={"memory": 2**53 - 1})
    assert task["requested_resources"]["cpu_memory_bytes"] == 2**53 - 1


def test_text_comes_back_as_it_was_and_is_never_taken_for_a_page(server: Server):
    name = SCRIPT + "\u0000ü\U0001f333\r\n"
    task = make(server.provider, name=name, tags={"x": SCRIPT})
    answer = server.provider.get(f"tasks/{task['_id']}")
    assert answer.json()["name"] == name
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_body_that_is_too_long_is_413(server: Server):
    body = b'{"name": "' + b"x" * (16 * 2**20) + b'"}'
    answer = server.provider.post("tasks", data=body, headers=JSON)
    refused(answer, 413, "too_large")


# --- Headers -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_a_body_of_another_type_is_415(server: Server, kind: str):
    answer = server.provider.post("tasks", data=b'{"command": "x"}', headers={"Content-Type": kind})
    refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
def test_a_compressed_body_is_415(server: Server, encoding: str):
    headers = {**JSON, "Content-Encoding": encoding}
    answer = server.provider.post("tasks", data=b'{"command": "x"}', headers=headers)
    refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/xml", "text/html", "image/png"])
def test_who_takes_no_json_gets_406_as_json(server: Server, kind: str):
    answer = server.provider.get("tasks", headers={"Accept": kind})
    refused(answer, 406, "not_acceptable")
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "kind", ["*/*", "application/json", "application/*;q=0.1", "text/html,*/*"]
)
def test_who_takes_json_among_others_gets_it(server: Server, kind: str):
    assert server.provider.get("tasks", headers={"Accept": kind}).status_code == 200


def test_the_method_cannot_be_overridden_by_a_header(server: Server):
    task = make(server.provider)
    for name in ("X-HTTP-Method-Override", "X-Method-Override"):
        answer = server.provider.get(f"tasks/{task['_id']}", headers={name: "PATCH"})
        assert answer.json()["_etag"] == task["_etag"]
        answer = server.provider.post(f"tasks/{task['_id']}", {}, headers={name: "DELETE"})
        refused(answer, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "wait=x"}, {"Prefer": "wait=-1"}, {"Prefer": "wait=1e400"}, {"Prefer": ",;=,"},
        {"Prefer": "wait=NaN"}, {"If-None-Match": "x"}, {"If-None-Match": '"'}, {"If-Match": ""},
        {"If-Modified-Since": "yesterday"}, {"Range": "bytes=0-"}, {"Range": "bytes=9-1,x"},
        {"Accept": ";;;"}, {"Accept-Encoding": "x"}, {"Cookie": "a=b"}, {"X-Forwarded-For": "x"},
    ],
)  # fmt: skip
def test_odd_headers_break_nothing(server: Server, headers: dict[str, str]):
    task = make(server.provider)
    for path in ("tasks", f"tasks/{task['_id']}", f"tasks/{task['_id']}/log"):
        assert server.provider.get(path, headers=headers).status_code < 500


@pytest.mark.parametrize(
    "target",
    [
        "/tasks?where=%ff", "/tasks?where=%00", '/tasks?where={"name":"x"}', "/tasks?%ff=1",
        "/tasks?", "/tasks?where=" + "x" * 20_000, "//tasks", "/tasks/", "/%ff", "/tasks/%2e%2e",
        "/tasks;a=b", "/tasks#x",
        "/tasks/" + "f" * 24 + "/", "/tasks/" + "f" * 10_000, "/" + "a/" * 5_000, "/?x=1",
    ],
)  # fmt: skip
def test_odd_addresses_are_answered_with_json_below_500(server: Server, target: str):
    status, headers, body = raw(server, "GET", target)
    assert status < 500, body
    if len(target) < 5_000 and status not in (301, 302, 308):
        assert headers["content-type"] == "application/json", (status, body)
        json.loads(body)


# --- Half a write ----------------------------------------------------------------------------


def test_a_report_with_a_state_or_data_of_the_wrong_kind_is_4xx(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    player = play.player()
    [item] = player.claim()
    token = {"token": item["token"]}
    for body in (
        {"state": "bogus", "update_execution_data": token},
        {"state": 5, "update_execution_data": token},
        {"state": None, "update_execution_data": token},
        {"state": ["terminated"], "update_execution_data": token},
        {"state": "inactive", "update_execution_data": token},
        {"update_execution_data": [1]},
        {"update_execution_data": "abc"},
        {"update_execution_data": 5},
        {"update_execution_data": {"token": 5}},
        {"update_execution_data": {"token": "att_x"}},
        {"update_execution_data": {**token, "log": [{"offset": -1}]}},
        {"update_execution_data": {**token, "log": "x"}},
        {"update_execution_data": {**token, "memory_usage": [{"time": "x"}]}},
        {"update_execution_data": {**token, "exit_status": "success"}},
        {"update_execution_data": {**token, "worker_state": 1}},
        {"progress": "half", "update_execution_data": token},
        {"progress": {"done": -1}, "update_execution_data": token},
        {"progress": {"total": {"$gt": 1}}, "update_execution_data": token},
    ):
        for answer in (
            server.worker.patch(f"tasks/{task_id}", body),
            server.worker.patch("tasks", [{"_id": task_id, **body}]),
        ):
            if answer.status_code == 207:
                [told] = answer.json()["_items"]
                assert 400 <= told["_error"]["code"] < 500, (body, told)
            else:
                assert 400 <= answer.status_code < 500, (body, answer.text)
    assert play.task(task_id)["state"] == "running"
    assert play.task(task_id)["progress"] is None
    assert player.end(item).status_code == 200


def test_a_result_is_kept_as_it_is_whatever_its_keys(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    player = play.player()
    [item] = player.claim()
    result = {"a.b": 1, "$set": {"x": [None, True, 1.5]}, "": "empty"}
    body = {"result": result, "update_execution_data": {"token": item["token"]}}
    answer = server.worker.patch(f"tasks/{task_id}", body)
    assert answer.status_code == 200, answer.text
    assert play.task(task_id)["result"] == result


@pytest.mark.parametrize(
    "body",
    [
        {"attempts": "x"}, {"attempts": ["x"]}, {"attempts": {}}, {"used": 5},
        {"used": {"cores": -1}}, {"mode": "lost"}, [], "x", 5,
    ],
)  # fmt: skip
def test_a_malformed_beat_is_422(server: Server, body: Any):
    player = Play(server).player()
    refused(server.worker.post(f"workers/{player.id}/beat", body), 422, "invalid")


@pytest.mark.parametrize(
    "change",
    [
        {"host": ""}, {"host": 1}, {"resources": None}, {"resources": {"cores": 1}},
        {"resources": {"cores": "x", "memory": 1}}, {"queues": []}, {"queues": ["a b"]},
        {"queues": "a"}, {"labels": []}, {"labels": {"$a": "x"}}, {"account": "provider"},
        {"mode": "off"}, {"_id": "x"},
    ],
)  # fmt: skip
def test_a_malformed_worker_is_422(server: Server, change: Item):
    worker = {"host": "h", "resources": {"cores": 1, "memory": 1}, **change}
    refused(server.worker.post("workers", worker), 422, "invalid")


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""}, {"name": "a b"}, {"name": 1}, {"name": "a\n"}, {"roles": []},
        {"roles": ["root"]}, {"roles": "admin"}, {"roles": ["provider", "provider"]},
        {"token": "x"}, {"revoked": False},
    ],
)  # fmt: skip
def test_a_malformed_account_is_422(server: Server, change: Item):
    account = {"name": new_id(), "roles": ["provider"], **change}
    refused(server.admin.post("accounts", account), 422, "invalid")


@pytest.mark.parametrize(
    "arguments",
    [{"offset": "-1"}, {"offset": "x"}, {"offset": "1e400"}, {"attempt": "x"}, {"stream": "both"},
     {"stream": ""}, {"what": "x"}],
)  # fmt: skip
def test_a_malformed_question_for_output_is_400(server: Server, arguments: Item):
    task = make(server.provider)
    refused(server.provider.get(f"tasks/{task['_id']}/log", **arguments), 400, "bad_request")
