"""A backup of the data directory, as docs/operations.md says, and what becomes of what ran then."""

import json
import shutil
from pathlib import Path

from tests.contract.playing import Play, Player, chunk, word
from tests.e2e.stack import Stack
from tests.harness import Api, Processes, Server, eventually


def server_of(stack: Stack) -> Server:
    return Server(stack.started, stack.url, stack.credentials)


def test_a_restored_backup_gives_out_again_what_ran_and_refuses_who_ran_it(
    processes: Processes, tmp_path: Path
):
    stack = Stack(
        processes, tmp_path, "--no-worker", LEASE_SECONDS=4, LEASE_MARGIN_SECONDS=1,
        UPKEEP_SECONDS=0.5,
    )  # fmt: skip
    play = Play(server_of(stack))
    player = play.player()
    before, running = play.submit(2)
    done, held = player.claim(2)
    assert (done["_id"], held["_id"]) == (before, running)
    player.report(done, log=[chunk(0, b"kept\n")])
    player.end(done)

    assert stack.started.terminate() == 0
    shutil.copytree(stack.data, tmp_path / "backup", symlinks=True)  # cp -a

    stack.start()  # the world goes on after the backup
    play.server = server_of(stack)
    player.api = play.server.worker
    (after,) = play.submit()
    eventually(lambda: play.task(running)["state"] == "available", 30)
    assert stack.started.terminate() == 0

    shutil.rmtree(stack.data)
    shutil.copytree(tmp_path / "backup", stack.data, symlinks=True)
    assert (stack.data / "credentials").stat().st_mode & 0o777 == 0o600
    stack.start()
    server = server_of(stack)
    play.server = server
    assert play.task(before)["outcome"] == "success"
    assert server.provider.get(f"tasks/{before}/log").content == b"kept\n"
    assert server.provider.get(f"tasks/{after}").status_code == 404

    # Its lease ended long ago: what ran at the backup is given out again, once.
    eventually(lambda: play.task(running)["state"] == "available", 30)
    old = Api(server.url, server.tokens["worker"])
    body = {"state": "terminated", "update_execution_data": {
        "token": held["token"], "exit_status": "success", "time_terminated": "2026-01-01T00:00:00Z",
    }}  # fmt: skip
    assert word(old.patch(f"tasks/{running}", body)) == (409, "lease_lost")
    again = Player(server.worker, play.queue)
    (item,) = again.claim()
    assert item["_id"] == running
    assert word(old.patch(f"tasks/{running}", body)) == (409, "lease_lost")
    assert again.end(item).status_code == 200
    assert [one["exit_status"] for one in play.attempts(running)] == ["lost", "success"]
    assert json.loads(stack.credentials.read_text()).keys() == {"admin", "provider", "worker"}
