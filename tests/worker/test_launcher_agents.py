"""What the launcher does when its agent dies, another comes, or none does."""

import signal
import uuid

from banyan.worker import launching
from banyan.worker.launcher import SOCKET
from banyan.worker.sweep import sweep
from banyan.worker.timers import now
from tests.harness import eventually
from tests.worker.launched import Launched, carrying


def test_tasks_go_on_when_the_agent_dies_and_the_next_takes_them_over(launcher: Launched):
    ended = launcher.shell("head -c 50000 /dev/zero; exit 3")
    launcher.ended(ended)
    running = launcher.shell("echo before; sleep 0.5; echo after; exit 4")
    launcher.says(running, b"before\n")
    launcher.hang_up()
    hello = launcher.call_again()
    assert hello["pid"] == launcher.process.pid
    assert [(each["attempt"], each["code"]) for each in hello["ended"]] == [(ended, 3)]
    assert [(each["attempt"], each["keep"]) for each in hello["running"]] == [
        (running, {"of": running})
    ]
    assert len(launcher.output(ended)) == 50000
    assert launcher.ended(running)["code"] == 4
    assert launcher.output(running) == b"before\nafter\n"


def test_an_end_that_no_agent_saw_is_kept_for_the_next(launcher: Launched):
    launcher.say({"do": "trust", "until": now() + 100, "lease_end": now() + 110})
    attempt = launcher.shell("exit 5")
    launcher.until("started", attempt)
    launcher.hang_up()
    eventually(lambda: not carrying("BANYAN_ATTEMPT", attempt))
    hello = launcher.call_again()
    (known,) = hello["ended"] or hello["running"]
    assert (known["attempt"], known["keep"]) == (attempt, {"of": attempt})
    ended = hello["ended"][0] if hello["ended"] else launcher.ended(attempt)
    assert (ended["attempt"], ended["code"]) == (attempt, 5)


def test_what_was_delivered_is_told_to_the_next_agent(launcher: Launched):
    attempt = launcher.shell("echo hello; exec sleep 1000")
    launcher.says(attempt, b"hello\n")
    launcher.say({"do": "shipped", "attempt": attempt, "position": 11, "offset": 6})
    launcher.hang_up()
    assert launcher.call_again()["running"][0]["shipped"] == [11, 6]


def test_it_ends_with_its_agent_when_nothing_runs(launcher: Launched):
    attempt = launcher.shell("exit 0")
    launcher.ended(attempt)
    launcher.say({"do": "forget", "attempts": [attempt]})
    launcher.hang_up()
    assert launcher.process.wait(5) == 0
    assert not (launcher.state_directory / SOCKET).exists()
    assert launching.find(launcher.state_directory) is None


def test_it_stays_until_the_last_task_has_ended_after_a_goodbye(launcher: Launched):
    attempt = launcher.shell("echo ready; sleep 0.5")
    launcher.says(attempt, b"ready")
    launcher.say({"do": "goodbye"})
    launcher.ended(attempt)
    assert launcher.process.wait(5) == 0


def test_without_an_agent_it_ends_tasks_when_their_lease_ends_and_goes_away(launcher: Launched):
    attempt = launcher.shell("head -c 50000 /dev/zero; exec sleep 1000")
    launcher.says(attempt, b"\0" * 50000)
    launcher.say({"do": "trust", "until": now() + 0.3, "lease_end": now() + 0.8})
    launcher.until("trusted")
    launcher.hang_up()
    assert launcher.process.wait(10) == 0
    assert carrying("BANYAN_ATTEMPT", attempt) == []
    assert list((launcher.state_directory / "output").iterdir()) == []


def test_a_new_agent_takes_the_place_of_a_frozen_one(launcher: Launched):
    frozen = launcher.line
    hello = launcher.call_again()
    assert hello["running"] == []
    assert launcher.run("exit 2")[0]["code"] == 2
    frozen.close()


def test_an_agent_that_does_not_listen_holds_nothing_up(launcher: Launched):
    """More messages than a socket takes are kept until the agent reads again."""
    attempts = [launcher.start(["/bin/true"], keep={"long": "x" * 5000}) for _ in range(300)]
    eventually(lambda: not any(carrying("BANYAN_ATTEMPT", each) for each in attempts[-1:]))
    for attempt in attempts:
        assert launcher.ended(attempt)["code"] == 0


def test_a_launcher_that_is_killed_leaves_its_tasks_to_be_found_by_their_marker(
    launcher: Launched,
):
    worker = uuid.uuid4().hex
    command = "sleep 1000 & echo ready; exec sleep 1000"
    attempt = launcher.shell(command, env={"BANYAN_WORKER_ID": worker})
    launcher.says(attempt, b"ready")
    launcher.process.send_signal(signal.SIGKILL)
    launcher.process.wait(5)
    assert len(carrying("BANYAN_ATTEMPT", attempt)) == 2
    assert launching.find(launcher.state_directory) is None
    assert sweep({worker}, spare=[attempt]) == []
    assert len(carrying("BANYAN_ATTEMPT", attempt)) == 2
    assert sweep({worker}) == []
    assert carrying("BANYAN_ATTEMPT", attempt) == []
