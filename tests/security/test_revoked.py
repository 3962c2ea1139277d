"""Who is revoked is out within a second: also by the tokens of attempts, and by its workers."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from banyan.errors import EXIT_AUTH
from banyan.server.store import accounts
from tests.contract.playing import Item, Player, word
from tests.harness import Api, Processes, Server, eventually
from tests.server.explained import Bench

UNAUTHENTICATED = (401, "unauthenticated")
TASK = {"command": "true", "state": "available"}


class Account:
    """An account of a test's own."""

    def __init__(self, server: Server, role: str) -> None:
        self.server, self.name = server, uuid.uuid4().hex
        answer = server.admin.post("accounts", {"name": self.name, "roles": [role]})
        self.id: str = answer.json()["_id"]
        self.api = Api(server.url, answer.json()["token"])

    def revoke(self) -> Item:
        answer = self.server.admin.post(f"accounts/{self.id}/revoke")
        assert answer.status_code == 200, answer.text
        told: Item = answer.json()
        return told


class Claimed:
    """A task of one account, claimed by a worker of another."""

    def __init__(self, server: Server, owner: Account | None = None) -> None:
        self.server, self.queue = server, uuid.uuid4().hex
        self.owner, self.account = owner or Account(server, "provider"), Account(server, "worker")
        self.id = self.submit()
        self.player = Player(self.account.api, self.queue)
        self.item: Item = self.player.claim_one(self.id).json()
        self.task = Api(server.url, self.item["token"])

    def submit(self) -> str:
        # It is nobody's fault who has its worker revoked: that does not count as a loss.
        made = self.owner.api.post("tasks", {**TASK, "queue": self.queue, "max_lost_count": 0})
        assert made.status_code == 201, made.text
        return str(made.json()["_id"])

    def stored(self) -> Item:
        found: Item = self.server.operator.get(f"tasks/{self.id}").json()
        return found

    def says(self) -> list[Any]:
        """What it is answered to all that a running task may say."""
        return [
            self.task.post("tasks", {"command": "true"}),
            self.task.post(f"tasks/{self.id}/progress", {"done": 1}),
            self.task.post(f"tasks/{self.id}/result", {"loss": 0.1}),
        ]


@pytest.fixture
def claimed(server: Server) -> Claimed:
    return Claimed(server)


def submitted(server: Server, owner: Account) -> int:
    where = f'{{"owner":"{owner.name}"}}'
    return len(server.operator.get("tasks", where=where, max_results=1000).json()["_items"])


def test_tasks_of_a_revoked_owner_submit_nothing(server: Server, claimed: Claimed) -> None:
    assert {answer.status_code for answer in claimed.says()} == {200, 201}
    later = claimed.submit()
    before = submitted(server, claimed.owner)
    claimed.owner.revoke()
    assert [word(answer) for answer in claimed.says()] == [UNAUTHENTICATED] * 3
    item = claimed.player.claim_one(later).json()
    answer = Api(server.url, item["token"]).post("tasks", {"command": "true"})
    assert word(answer) == UNAUTHENTICATED
    assert submitted(server, claimed.owner) == before


def test_they_end_as_others_do_and_it_is_told_how_many_are_left(claimed: Claimed) -> None:
    claimed.submit()
    assert claimed.owner.revoke()["open_task_count"] == 2
    assert claimed.player.end(claimed.item).status_code == 200
    assert (claimed.stored()["state"], claimed.stored()["outcome"]) == ("terminated", "success")
    assert claimed.owner.revoke()["open_task_count"] == 1


def test_who_is_in_use_again_has_tasks_that_submit_again(server: Server, claimed: Claimed) -> None:
    claimed.owner.revoke()
    assert server.admin.post(f"accounts/{claimed.owner.id}/issue").status_code == 201
    assert {answer.status_code for answer in claimed.says()} == {200, 201}


def test_what_a_revoked_worker_holds_is_given_back_at_once(claimed: Claimed) -> None:
    assert {answer.status_code for answer in claimed.says()} == {200, 201}
    claimed.account.revoke()
    assert claimed.stored()["state"] == "available"
    assert [word(answer) for answer in claimed.says()] == [UNAUTHENTICATED] * 3
    assert word(claimed.player.end(claimed.item)) == UNAUTHENTICATED
    assert word(claimed.player.beat()) == UNAUTHENTICATED
    answer = claimed.server.operator.get(f"workers/{claimed.player.id}")
    assert word(answer) == (404, "not_found")
    other = Player(claimed.server.worker, claimed.queue)
    assert [one["_id"] for one in other.claim()] == [claimed.id]
    told = claimed.owner.api.get(f"tasks/{claimed.id}/history").json()["_items"][0]
    assert "revoked" in told["reason"]


def test_nobody_elses_worker_is_touched(server: Server, claimed: Claimed) -> None:
    other = Claimed(server)
    claimed.account.revoke()
    claimed.owner.revoke()
    assert other.stored()["state"] == "running"
    assert {answer.status_code for answer in other.says()} == {200, 201}


def test_it_is_so_within_a_second_in_every_server_process(serve: Callable[..., Server]) -> None:
    server = serve(server_processes=2)
    claimed = Claimed(server)

    def answers() -> set[int]:
        body = {"done": 1}
        path = f"tasks/{claimed.id}/progress"
        fresh = [Api(server.url, claimed.item["token"]) for _ in range(20)]
        return {api.post(path, body).status_code for api in fresh}

    assert answers() == {200}  # whichever process answers, it remembers the token now
    claimed.owner.revoke()
    eventually(lambda: answers() == {401}, 5)


def test_to_look_at_both_accounts_is_one_command(bench: Bench) -> None:
    ids = bench.submit(2)
    items = bench.claim(bench.worker(), 2)
    authenticator = bench.client.application.extensions["banyan"].authenticator

    def say(item: Item) -> None:
        assert str(authenticator.authenticate(f"Bearer {item['token']}").task) in ids

    say(items[0])  # the key of all seals is read once
    commands = bench.during(lambda: say(items[1]))
    assert [next(iter(command)) for command in commands] == ["aggregate"]
    assert bench.examined(commands[0]) <= 4
    assert bench.during(lambda: say(items[1])) == []


def test_a_worker_that_registers_meanwhile_is_not_kept(bench: Bench) -> None:
    """Another process has revoked it: this one still remembers the token."""
    bench.worker()
    account = accounts.by_name(bench.store, "worker")
    assert account
    accounts.set_revoked(bench.store, account["_id"], revoked=True)
    before = bench.store["workers"].count_documents({})
    answer = bench.client.post(
        "/workers",
        headers={"Authorization": f"Bearer {bench.tokens['worker']}"},
        json={"host": "h", "resources": {"cores": 1, "memory": "1 GiB"}},
    )
    assert (answer.status_code, (answer.json or {})["_error"]["word"]) == UNAUTHENTICATED
    assert bench.store["workers"].count_documents({}) == before


def test_many_that_hold_tokens_of_a_revoked_owner_are_no_guesses(
    serve: Callable[..., Server],
) -> None:
    server = serve(AUTH_FAILURES_PER_MINUTE=3)
    owner = Account(server, "provider")
    running = [Claimed(server, owner) for _ in range(6)]
    owner.revoke()
    for one in running:
        assert word(one.task.post("tasks", {"command": "true"})) == UNAUTHENTICATED


def test_a_task_is_told_why(server: Server, claimed: Claimed, processes: Processes) -> None:
    claimed.owner.revoke()
    own = {
        "BANYAN_URL": server.url,
        "BANYAN_TASK_ID": claimed.id,
        "BANYAN_TASK_TOKEN": claimed.item["token"],
    }
    ended = processes.banyan("result", "1", environment=own)
    assert ended.wait(30) == EXIT_AUTH
    assert "account of its owner or of its worker has been revoked" in ended.stderr
