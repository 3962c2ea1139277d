"""Accounts and tokens: who gets in, as whom, and that what is secret stays so."""

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from tests.contract.playing import Item, Play, chunk, word
from tests.harness import Api, Server, eventually

UNAUTHENTICATED = (401, "unauthenticated")


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


@pytest.fixture
def stored(module_database: str) -> Iterator[Database[Item]]:
    """What the server keeps."""
    with MongoClient[Item](module_database) as client:
        yield client[str(parse_uri(module_database)["database"])]


def create(server: Server, *roles: str, **more: Any) -> Item:
    body = {"name": uuid.uuid4().hex, "roles": list(roles) or ["provider"], **more}
    answer = server.admin.post("accounts", body)
    assert answer.status_code == 201, answer.text
    account: Item = answer.json()
    return account


# --- Accounts ------------------------------------------------------------------------------


def test_an_admin_creates_an_account_and_gets_its_token_once(server: Server):
    account = create(server, "provider", "operator")
    assert account["roles"] == ["provider", "operator"]
    assert Api(server.url, account["token"]).get("tasks").status_code == 200
    listed = server.admin.get("accounts", max_results=1000)
    assert account["_id"] in [one["_id"] for one in listed.json()["_items"]]
    shown = server.admin.get(f"accounts/{account['_id']}")
    assert (shown.json()["name"], shown.json()["roles"]) == (account["name"], account["roles"])
    secret = account["token"].split("_", 2)[2]
    for answer in (listed, shown):
        assert secret not in answer.text
        assert "token" not in answer.json()


def test_a_name_is_taken_once(server: Server):
    account = create(server)
    again = server.admin.post("accounts", {"name": account["name"], "roles": ["admin"]})
    assert word(again) == (409, "already_exists")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "a" * 129},
        {"name": 5},
        {"name": None},
        {"roles": []},
        {"roles": ["root"]},
        {"roles": "admin"},
        {"roles": ["admin", "admin"]},
        {"roles": None},
        {"token": "mine"},
        {"revoked": False},
        {"expires": "soon"},
    ],
)
def test_an_account_that_makes_no_sense_is_refused(server: Server, wrong: Item):
    body = {"name": uuid.uuid4().hex, "roles": ["provider"], **wrong}
    answer = server.admin.post("accounts", body)
    assert word(answer) == (422, "invalid")
    assert answer.json()["_issues"].keys() == wrong.keys()


@pytest.mark.parametrize("missing", ["name", "roles"])
def test_an_account_needs_a_name_and_roles(server: Server, missing: str):
    body = {"name": uuid.uuid4().hex, "roles": ["provider"]}
    del body[missing]
    answer = server.admin.post("accounts", body)
    assert word(answer) == (422, "invalid")
    assert answer.json()["_issues"].keys() == {missing}


# --- Tokens --------------------------------------------------------------------------------


def test_tokens_have_256_bits_and_only_their_hash_is_kept(server: Server, stored: Database[Item]):
    account = create(server)
    secret = account["token"].split("_", 2)[2]
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert create(server)["token"] != account["token"]
    (kept,) = stored["tokens"].find({"account": account["name"]})
    assert kept["hash"] == hashlib.sha256(secret.encode()).hexdigest()
    everything = json.dumps(
        [list(stored[name].find()) for name in stored.list_collection_names()], default=str
    )
    assert account["name"] in everything
    assert secret not in everything


@pytest.mark.parametrize("collection", ["tokens", "secrets", "shapes", "duties", "log_chunks"])
def test_collections_with_secrets_and_workings_are_not_served(server: Server, collection: str):
    for api in (server.admin, server.operator):
        assert word(api.get(collection)) == (404, "not_found")


def _bearer(token: str) -> str:
    return f"Bearer {token}"


def _basic(token: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{token}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "header",
    [
        _bearer,
        lambda token: f"bearer  {token} ",
        _basic,
        lambda token: _basic(token, "ignored"),
    ],
)
def test_a_token_is_sent_as_bearer_or_as_the_user_name_of_basic(
    server: Server, header: Callable[[str], str]
):
    token = create(server)["token"]
    answer = server.anonymous.get("tasks", headers={"Authorization": header(token)})
    assert answer.status_code == 200


def test_no_token_and_a_wrong_one_are_answered_alike(server: Server):
    token = create(server)["token"]
    kind, public_id, secret = token.split("_", 2)
    other = create(server)["token"].split("_", 2)
    headers = [
        {},
        *(
            {"Authorization": value}
            for value in (
                "",
                "Bearer",
                "Bearer ",
                token,
                f"Digest {token}",
                _bearer("x"),
                _bearer(f"{kind}_{public_id}_{secret[:-1]}"),
                _bearer(f"{kind}_{public_id}_{other[2]}"),
                _bearer(f"{kind}_{'0' * 16}_{secret}"),
                _bearer(f"{kind}_{public_id}_"),
                _bearer(f"{kind}__{secret}"),
                _bearer(token.upper()),
                "Basic !!!",
                "Basic \u00e9".encode("latin-1"),
                "Basic " + base64.b64encode(b"\xff\xfe").decode(),
                _basic(""),
                _basic("", token),
                "Bearer \u00e4".encode("latin-1"),
            )
        ),
    ]
    answers = [server.anonymous.get("tasks", headers=header) for header in headers]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="banyan"'}


def test_a_revoked_token_is_worth_nothing(server: Server):
    account = create(server)
    api = Api(server.url, account["token"])
    assert api.get("tasks").status_code == 200
    answer = server.admin.post(f"accounts/{account['_id']}/revoke")
    assert (answer.status_code, answer.json()["revoked"]) == (200, True)
    assert word(api.get("tasks")) == UNAUTHENTICATED


def test_a_revoked_token_is_soon_worth_nothing_in_every_server_process(
    serve: Callable[..., Server],
):
    server = serve(server_processes=2)
    account = create(server)
    for _ in range(20):  # whichever process answers, it remembers the token now
        assert Api(server.url, account["token"]).get("tasks").status_code == 200
    server.admin.post(f"accounts/{account['_id']}/revoke")
    revoked = lambda: all(  # noqa: E731
        Api(server.url, account["token"]).get("tasks").status_code == 401 for _ in range(20)
    )
    eventually(revoked, 5)


def test_an_account_gets_one_more_token(server: Server):
    account = create(server)
    answer = server.admin.post(f"accounts/{account['_id']}/issue")
    assert answer.status_code == 201
    for token in (account["token"], answer.json()["token"]):
        assert Api(server.url, token).get("tasks").status_code == 200


def test_a_token_that_has_expired_is_worth_nothing(server: Server):
    past, future = ((datetime.now(UTC) + timedelta(days=days)).isoformat() for days in (-1, 1))
    account = create(server, expires=past)
    assert word(Api(server.url, account["token"]).get("tasks")) == UNAUTHENTICATED
    address = f"accounts/{account['_id']}/issue"
    for expires, status in ((future, 200), (past, 401), (None, 200)):
        token = server.admin.post(address, {"expires": expires}).json()["token"]
        assert Api(server.url, token).get("tasks").status_code == status


def test_an_admin_sees_when_tokens_expire_and_when_they_were_used(server: Server):
    account = create(server, expires="2100-01-01T00:00:00.000Z")
    listed = lambda: server.admin.get(f"accounts/{account['_id']}/tokens")  # noqa: E731
    (before,) = listed().json()["_items"]
    assert (before["expires"], before["last_use"]) == ("2100-01-01T00:00:00.000Z", None)
    assert before["created"]
    Api(server.url, account["token"]).get("tasks")
    (after,) = listed().json()["_items"]
    assert after["last_use"]
    assert "hash" not in after
    assert account["token"].split("_", 2)[2] not in listed().text


# --- Roles ---------------------------------------------------------------------------------


def test_an_account_may_have_several_roles(server: Server):
    both = Api(server.url, create(server, "provider", "worker")["token"])
    assert both.post("tasks", {"command": "true"}).status_code == 201
    worker = {"host": "h", "resources": {"cores": 1, "memory": "1 GiB"}}
    assert both.post("workers", worker).status_code == 201
    assert word(both.get("accounts")) == (403, "forbidden")


def test_a_provider_sees_its_own_tasks_and_no_others(play: Play):
    (task,) = play.submit()
    player = play.player()
    (item,) = player.claim(1)
    other = Api(play.server.url, create(play.server, "provider")["token"])
    assert other.get("tasks").json()["_items"] == []
    assert other.get("attempts").json()["_items"] == []
    assert other.get(f"workers/{player.id}/running").json()["_items"] == []
    for path in (f"tasks/{task}", f"tasks/{task}/history", f"attempts/{item['attempt_id']}"):
        assert word(other.get(path)) == (404, "not_found")


def test_an_operator_sees_and_stops_everybodys_tasks(play: Play):
    (task,) = play.submit()
    operator = Api(play.server.url, create(play.server, "operator")["token"])
    assert operator.get(f"tasks/{task}").status_code == 200
    assert operator.post(f"tasks/{task}/cancel").json()["state"] == "cancelled"


def test_a_worker_sees_what_it_holds_and_what_it_may_claim(play: Play):
    held, free = play.submit(2)
    (inactive,) = play.submit(state="inactive")
    player, other = (
        play.player(),
        play.player(Api(play.server.url, create(play.server, "worker")["token"])),
    )
    assert player.claim_one(held).status_code == 200
    for task, own, others in ((held, 200, 404), (free, 200, 200), (inactive, 404, 404)):
        assert player.api.get(f"tasks/{task}").status_code == own
        assert other.api.get(f"tasks/{task}").status_code == others
    mine = {"where": json.dumps({"queue": play.queue})}
    assert [t["_id"] for t in player.api.get("tasks", **mine).json()["_items"]] == [held, free]
    assert [t["_id"] for t in other.api.get("tasks", **mine).json()["_items"]] == [free]


def test_a_worker_neither_creates_nor_edits_tasks(play: Play):
    (task,) = play.submit()
    player = play.player()
    player.claim(1)
    before = play.task(task)
    assert word(player.api.post("tasks", {"command": "true"})) == (403, "forbidden")
    for change in ({"priority": 5}, {"tags": {"a": "b"}}, {"command": "false"}):
        assert word(player.api.patch(f"tasks/{task}", change)) == (403, "forbidden")
    assert word(player.api.post(f"tasks/{task}/cancel")) == (403, "forbidden")
    assert play.task(task) == before


def test_an_admin_has_accounts_and_nothing_else(play: Play):
    (task,) = play.submit()
    for path in ("tasks", f"tasks/{task}", "attempts", "workers"):
        assert word(play.server.admin.get(path)) == (403, "forbidden")


# --- Attempt tokens ------------------------------------------------------------------------


def test_attempt_tokens_are_in_the_answer_to_the_claim_and_nowhere_else(
    play: Play, stored: Database[Item]
):
    (task,) = play.submit(max_attempt_count=2)
    player = play.player()
    (item,) = player.claim(1)
    seal = item["token"].rpartition("_")[2]
    said = [player.report(item, log=[chunk(0, b"x")]), player.beat()]
    everybody = (play.server.provider, play.server.operator, player.api)
    paths = (
        "tasks", f"tasks/{task}", f"tasks/{task}/history", f"tasks/{task}/current_attempt",
        f"tasks/{task}/log", "attempts", f"attempts/{item['attempt_id']}",
        f"workers/{player.id}", f"workers/{player.id}/running", "workers",
    )  # fmt: skip
    said += [api.get(path) for api in everybody for path in paths]
    said.append(player.end(item, "failure (1)"))
    for answer in said:
        assert answer.status_code == 200
        assert seal not in answer.text
    everything = [list(stored[name].find()) for name in stored.list_collection_names()]
    assert seal not in json.dumps(everything, default=str)
