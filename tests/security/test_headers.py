"""What every answer says of itself: no guessing of its kind, and no keeping of what is secret."""

from typing import Any

import pytest

from tests.harness import Server
from tests.harness.asgi import served
from tests.harness.things import Things


def safe(headers: Any) -> bool:
    return bool(
        headers["X-Content-Type-Options"] == "nosniff"
        and headers["Content-Type"].split(";")[0] in ("application/json", "text/plain")
    )


def test_every_answer_is_what_it_says_and_an_account_with_its_token_is_not_kept(
    server: Server,
) -> None:
    task = server.provider.post("tasks", {"command": "true"}).json()["_id"]
    for path in ("/", "healthz", "openapi.json", "tasks", f"tasks/{task}/script", "nowhere"):
        assert safe(server.provider.get(path).headers), path
    assert safe(server.anonymous.get("tasks").headers)
    made = server.admin.post("accounts", {"name": "a", "roles": ["provider"]})
    assert made.json()["token"]
    assert made.headers["Cache-Control"] == "no-store"
    assert safe(made.headers)


@pytest.mark.parametrize("request_line", [b"GET /bug", b"GET /away", b"GET /refuse", b"nonsense"])
def test_so_is_what_is_refused_in_front_of_the_application(request_line: bytes) -> None:
    with served(Things()) as front:
        head = b"Host: x\r\nConnection: close\r\n\r\n"
        answer = front.raw(request_line + b" HTTP/1.1\r\n" + head).lower()
    assert answer.startswith(b"http/1.1 ")
    assert b"\r\nx-content-type-options: nosniff\r\n" in answer
    assert b"\r\ncache-control: no-store\r\n" in answer
