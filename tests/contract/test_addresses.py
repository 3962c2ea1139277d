"""Addresses in answers mean what RFC 3986 says, whichever document they stand in."""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from tests.contract.asking import make, read
from tests.contract.playing import Play
from tests.harness import Api, Server

# All that RFC 3986 allows to stand in a reference: what else there is, is percent-encoded.
REFERENCE = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")


def hrefs(value: Any) -> Iterator[tuple[str, str]]:
    """(method, href) of every link anywhere in a document."""
    if isinstance(value, list):
        for one in value:
            yield from hrefs(one)
    elif isinstance(value, dict):
        if value.keys() == {"title", "href", "method"} and isinstance(value["href"], str):
            yield value["method"], value["href"]
        else:
            for one in value.values():
                yield from hrefs(one)


def walk(api: Api) -> dict[str, str]:
    """Every address that links lead to from GET /, with a document in which it stands."""
    headers = {"Authorization": f"Bearer {api.token}"}
    found, left = {}, [f"{api.url}/"]
    while left:
        address = left.pop()
        answer = requests.get(address, headers=headers, timeout=30)
        assert answer.status_code == 200, (address, found.get(address), answer.text[:300])
        if answer.headers["Content-Type"] != "application/json":
            continue
        for method, href in hrefs(answer.json()):
            assert REFERENCE.fullmatch(href), (address, href)
            target = urljoin(address, href)
            if target not in found:
                found[target] = address
                left += [target] if method == "GET" else []
    return found


def test_every_address_resolves_against_the_document_that_it_stands_in(server: Server):
    play = Play(server)
    parent, other = play.submit(2)
    player = play.player()
    (item,) = player.claim()
    player.end(item)
    make(server.provider, after=[other])
    paths = {urlsplit(one).path for one in walk(server.provider)}
    wanted = {"/", "/tasks", f"/tasks/{parent}/history", f"/attempts/{item['attempt_id']}"}
    assert wanted | {f"/workers/{player.id}", "/openapi.json"} <= paths
    for api in (server.worker, server.admin, server.operator):
        walk(api)


def test_an_address_leads_nowhere_where_what_it_needs_was_not_asked_for(server: Server):
    task = make(server.provider)
    played = Play(server)
    played.submit()
    (item,) = played.player().claim()
    path = f"attempts/{item['attempt_id']}"
    few = server.provider.get(path, projection='{"task":1}').json()
    assert {"task", "self"} <= few["_links"].keys()
    assert {"worker", "log"}.isdisjoint(few["_links"])
    assert "attempts" in read(server.provider, task)["_links"]


def test_what_was_created_is_where_the_answer_says(server: Server):
    answer = server.provider.post("tasks", {"command": "true"})
    path = answer.headers["Location"]
    assert path == f"/tasks/{answer.json()['_id']}"
    assert server.provider.get(path).json()["_id"] == answer.json()["_id"]
    assert "Location" not in server.provider.post("tasks", [{"command": "true"}]).headers


def test_a_write_tells_the_version_that_a_read_tells(server: Server):
    made = server.provider.post("tasks", {"command": "true"})
    path = made.headers["Location"]
    assert made.headers["ETag"] == server.provider.get(path).headers["ETag"]
    minimal = {"Prefer": "return=minimal"}
    for method, address, body in (
        ("PATCH", path, {"name": "x"}),
        ("POST", f"{path}/cancel", None),
        ("POST", f"{path}/retry", None),
    ):
        answer = server.provider.request(method, address, body, headers=minimal)
        condition = {"If-None-Match": answer.headers["ETag"]}
        assert server.provider.get(path, headers=condition).status_code == 304, address


def test_addresses_have_the_prefix_under_which_a_proxy_serves(serve: Callable[..., Server]):
    proxied = serve(options=["--behind-proxy"])
    headers = {"X-Forwarded-Prefix": "/queue"}
    made = proxied.provider.post("tasks", {"command": "true"}, headers=headers)
    assert made.headers["Location"] == f"/queue/tasks/{made.json()['_id']}"
    for path in ("", "tasks", f"tasks/{made.json()['_id']}"):
        document = proxied.provider.get(path, headers=headers).json()
        assert all(href.startswith("/queue/") for _, href in hrefs(document)), path
    strange = proxied.provider.get("", headers={"X-Forwarded-Prefix": "//elsewhere"}).json()
    assert strange["_links"]["self"]["href"] == "/"
