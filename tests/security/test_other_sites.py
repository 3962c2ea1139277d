"""Pages of other sites, and requests that do not say whom they are for."""

import base64

import pytest
import requests

from tests.harness import Server
from tests.harness.asgi import served
from tests.harness.things import Things


def test_a_page_of_another_site_changes_nothing(server: Server) -> None:
    """A browser sends along the Basic credentials that its user has once put into an address."""
    task = server.provider.post("tasks", {"command": "true"}).json()["_id"]
    basic = base64.b64encode(f"{server.tokens['provider']}:".encode()).decode()
    item = f"{server.url}/tasks/{task}"
    for said in [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": server.url.replace("127.0.0.1", "127.0.0.2")},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": server.url},
        {"Sec-Fetch-Site": "anything", "Origin": server.url},
    ]:
        headers = {**said, "Authorization": f"Basic {basic}"}
        for answer in (
            requests.post(f"{item}/cancel", headers=headers, timeout=30),
            requests.patch(item, json={"name": "x"}, headers=headers, timeout=30),
        ):
            assert (answer.status_code, answer.json()["_error"]["word"]) == (403, "forbidden")
    assert server.provider.get(f"tasks/{task}").json()["state"] == "inactive"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://in-front.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "{own}"},
        {"Origin": "https://{host}"},  # TLS ends in a proxy
    ],
)
def test_our_own_pages_and_programs_do(server: Server, said: dict[str, str]) -> None:
    host = server.url.partition("://")[2]
    headers = {name: value.format(own=server.url, host=host) for name, value in said.items()}
    assert server.provider.post("tasks", {"command": "true"}, headers=headers).status_code == 201


def test_reading_is_left_to_the_browser(server: Server) -> None:
    """It gives an answer without CORS headers to no other site's page."""
    answer = server.provider.get("tasks", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: a\r\n", b"host: a\r\nHOST: b\r\n"])
def test_a_request_names_one_host(hosts: bytes) -> None:
    things = Things()
    with served(things) as front:
        answer = front.raw(b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"`Host`" in answer
        assert things.asked == 0
        assert front.raw(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")
