"""A set of three members: what a failover is to those who ask, and what is only half confirmed."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import NotPrimaryError

from banyan.client.api import Client
from banyan.server.doctor import database
from tests.contract.asking import new_id
from tests.contract.playing import Play
from tests.harness import Processes, Server, eventually, start_server
from tests.harness.replica_set import Member, ReplicaSet

NO_DISK = {"code": 14031, "errmsg": "injected"}
PRIMARY_GONE = {"code": 11602, "errmsg": "injected"}


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    directory = tmp_path_factory.mktemp("members")
    processes = Processes(directory)
    own = ReplicaSet(processes, directory / "mongo", port=20_000 + os.getpid() % 9000)
    own.start()
    yield own
    for member in own.members:
        member.signal(signal.SIGKILL)
    processes.end()


@pytest.fixture(scope="module")
def server(members: ReplicaSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    processes = Processes(directory)
    yield start_server(processes, directory / "data", members.uri)
    processes.end()


class Fail:
    """Lets commands of the server's fail, on whatever member is the primary then."""

    def __init__(self, members: ReplicaSet) -> None:
        self._members = members

    def each(self, command: str, after: int = 0, **how: Any) -> None:
        """Each such command from now on, after so many; upkeep's own count as well."""
        data = {"failCommands": [command], "appName": "banyan:banyan", **how}
        self._set({"skip": after} if after else "alwaysOn", data)

    def no_more(self) -> None:
        self._set("off", {})

    def _set(self, mode: Any, data: dict[str, Any]) -> None:
        primary = eventually(self._members.primary)
        with self._members.direct(primary) as client:
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)


@pytest.fixture
def fail(members: ReplicaSet) -> Iterator[Fail]:
    own = Fail(members)
    yield own
    own.no_more()


def step_down(members: ReplicaSet, primary: Member) -> None:
    with members.direct(primary) as client:
        client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)


def test_a_failover_is_felt_as_time_only(members: ReplicaSet, server: Server):
    """No request of a client fails, and what was acknowledged is there."""
    with Client(server.url, server.tokens["provider"], retry_seconds=60) as client:
        made = [client.submit({"command": "true"})["_id"]]
        for gone in (step_down, lambda _, primary: primary.process.kill()):
            primary = eventually(members.primary, 30)
            gone(members, primary)
            made += [client.submit({"command": "true"})["_id"] for _ in range(5)]
            members.revive()
        assert {client.get(one)["state"] for one in made} == {"available"}


@pytest.mark.parametrize("error", [NO_DISK, PRIMARY_GONE])
@pytest.mark.parametrize(  # one is taken by the command that also renews the lease, before it
    ("command", "after", "count"), [("findAndModify", 1, 1), ("update", 0, 2)]
)
def test_what_a_majority_has_not_confirmed_is_not_taken_for_done(
    server: Server, fail: Fail, error: dict[str, Any], command: str, after: int, count: int
):
    """A claim that may be rolled back is no claim; said again, it brings the same task."""
    play = Play(server)
    player = play.player()
    made = play.submit(count)
    fail.each(command, after, writeConcernError=error)
    body = {"worker": player.id, "claim_id": "one", "max": count}
    refused = player.api.post("tasks/claim", body)
    assert refused.status_code == 503, refused.text
    assert refused.headers["Retry-After"]
    fail.no_more()
    assert [one["_id"] for one in player.claim(count, claim_id="one")] == made
    assert all(len(play.attempts(task)) <= 1 for task in made)


def test_a_cancellation_that_a_majority_has_not_confirmed_is_not_taken_for_done(
    server: Server, fail: Fail
):
    play = Play(server)
    (task,) = play.submit()
    fail.each("update", writeConcernError=NO_DISK)
    assert server.provider.post(f"tasks/{task}/cancel").status_code == 503
    fail.no_more()
    assert server.provider.post(f"tasks/{task}/cancel").status_code == 200
    assert play.task(task)["state"] == "cancelled"


def test_a_request_that_is_repeated_is_answered_when_a_majority_has_what_the_first_has_written(
    members: ReplicaSet, server: Server
):
    """The first is told that it failed; what it wrote may be undone, and so is no answer yet."""
    play = Play(server)
    player, provider = play.player(), server.provider
    claimed_now, ended, cancelled, deduped = play.submit(count=4)
    token = player.claim_one(ended).json()
    new = {"_id": new_id(), "command": "true", "queue": play.queue}
    named = {"command": "true", "queue": play.queue, "dedupe_key": play.queue}
    requests: list[Callable[[], Any]] = [
        lambda: player.api.post("tasks/claim", {"worker": player.id, "claim_id": "one"}),
        lambda: player.end(token),
        lambda: provider.post(f"tasks/{cancelled}/cancel"),
        lambda: provider.patch(f"tasks/{deduped}", {"state": "inactive"}),
        lambda: provider.post("tasks", new),
        lambda: provider.post("tasks", named),
    ]
    with ThreadPoolExecutor(2 * len(requests)) as pool:
        with stalled(members):
            first = [pool.submit(one) for one in requests]
            eventually(lambda: written(members, claimed_now, ended, cancelled, deduped))
            again = [pool.submit(one) for one in requests]
            assert wait([*first, *again], timeout=2).done == set()
            assert play.task(cancelled)["state"] == "available", "what may be undone is not told"
        told = {one.result(60).status_code for one in (*first, *again)}
    assert told <= {200, 201, 409, 503}
    assert [one().status_code for one in requests] == [200, 200, 200, 200, 409, 200]


def test_what_another_primary_does_not_have_is_not_confirmed(members: ReplicaSet, server: Server):
    """The version that was read is asked for, wherever the question comes to."""
    play = Play(server)
    (task,) = play.submit()
    with database(members.uri) as store:
        found = list(store["tasks"].find({"_id": ObjectId(task)}))
        store.confirm(found)
        assert list(store["tasks"].find({"_id": ObjectId(task)})) == found, "it changes nothing"
        with pytest.raises(NotPrimaryError):
            store.confirm([{**found[0], "_etag": "undone"}])


@contextmanager
def stalled(members: ReplicaSet) -> Iterator[None]:
    """The secondaries hear of nothing new; all members see each other all the same."""
    primary = eventually(members.primary, 30)

    def set_point(mode: str) -> None:
        for member in members.members:
            if member is not primary:
                with members.direct(member) as client:
                    client.admin.command("configureFailPoint", "stopReplProducer", mode=mode)

    set_point("alwaysOn")
    try:
        yield
    finally:
        set_point("off")


def written(members: ReplicaSet, *tasks: str) -> bool:
    """Whether none of these is available any more, as the primary alone has it."""
    primary = eventually(members.primary)
    with members.direct(primary) as client:
        query = {"_id": {"$in": [ObjectId(one) for one in tasks]}, "state": "available"}
        return not client["banyan"]["tasks"].count_documents(query)


def test_a_primary_that_goes_in_the_middle_of_an_end_is_no_error_of_ours(
    server: Server, fail: Fail
):
    """From whichever of the commands on, the answer is 503 at most, and the end counts once."""
    play = Play(server)
    player = play.player()
    tasks = play.submit(count=6, continuations=[])
    statuses = []
    for number, task in enumerate(tasks):
        child = server.provider.post("tasks", {"command": "true", "after": [task]}).json()["_id"]
        claimed = player.claim_one(task).json()
        fail.each("update", after=number, writeConcernError=PRIMARY_GONE)
        statuses.append(player.end(claimed).status_code)
        fail.no_more()
        assert player.end(claimed).status_code == 200
        eventually(lambda one=child: play.task(one)["state"] == "available")
    assert set(statuses) <= {200, 503}
    assert 503 in statuses


@pytest.mark.parametrize("code", [11600, 189, 211, 14031])
def test_what_passes_by_itself_is_503(server: Server, fail: Fail, code: int):
    def refused() -> list[Any]:
        fail.each("find", errorCode=code)
        answer = server.provider.get("tasks")
        assert answer.status_code in (200, 503), answer.text
        return [answer] if answer.status_code == 503 else []  # another member may be the primary

    (answer,) = eventually(refused)
    assert answer.headers.get("Retry-After") == "1"


def test_what_was_to_be_written_does_not_stand_in_the_log(server: Server, fail: Fail):
    fail.each("insert", errorCode=2)
    task = {"command": "true", "env": {"PASSWORD": "canary-0815"}}
    server.provider.post("tasks", [task, task])
    assert "canary-0815" not in server.started.stderr
