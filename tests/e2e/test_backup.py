"""A backup of the data directory, as docs/operations.md says, and what becomes of what ran then."""

import shutil
from functools import partial
from pathlib import Path

from tests.contract.playing import Item, Play, Player, chunk, now, word
from tests.e2e.stack import Stack
from tests.harness import Processes, Server, eventually


def server_of(stack: Stack) -> Server:
    return Server(stack.started, stack.url, stack.credentials)


def report_of(item: Item) -> Item:
    """That the attempt has succeeded, as its worker says it."""
    data = {"token": item["token"], "exit_status": "success", "time_terminated": now()}
    return {"state": "terminated", "update_execution_data": data}


def started_again(stack: Stack, play: Play) -> Server:
    stack.start()
    play.server = server_of(stack)
    return play.server


def test_a_restored_backup_gives_out_again_what_ran_and_refuses_who_ran_it(
    processes: Processes, tmp_path: Path
):
    knobs = {"LEASE_SECONDS": 4, "LEASE_MARGIN_SECONDS": 1, "UPKEEP_SECONDS": 0.5}
    stack = Stack(processes, tmp_path, "--no-worker", **knobs)
    play = Play(server_of(stack))
    player = play.player()
    before, running = play.submit(2)
    done, held = player.claim(2)
    assert (done["_id"], held["_id"]) == (before, running)
    player.report(done, log=[chunk(0, b"kept\n")])
    player.end(done)
    assert stack.started.terminate() == 0
    shutil.copytree(stack.data, tmp_path / "backup", symlinks=True)  # cp -a

    started_again(stack, play)  # the world goes on after the backup
    (after,) = play.submit()
    eventually(lambda: play.task(running)["state"] == "available", 30)
    assert stack.started.terminate() == 0
    shutil.rmtree(stack.data)
    shutil.copytree(tmp_path / "backup", stack.data, symlinks=True)
    assert (stack.data / "credentials").stat().st_mode & 0o777 == 0o600

    server = started_again(stack, play)
    assert play.task(before)["outcome"] == "success"
    assert server.provider.get(f"tasks/{before}/log").content == b"kept\n"
    assert server.provider.get(f"tasks/{after}").status_code == 404
    # Its lease ended long ago: what ran at the backup is given out again, once.
    eventually(lambda: play.task(running)["state"] == "available", 30)
    late = partial(server.worker.patch, f"tasks/{running}", report_of(held))
    assert word(late()) == (409, "lease_lost")
    again = Player(server.worker, play.queue)
    (item,) = again.claim()
    assert item["_id"] == running
    assert word(late()) == (409, "lease_lost")
    assert again.end(item).status_code == 200
    assert [one["exit_status"] for one in play.attempts(running)] == ["lost", "success"]
