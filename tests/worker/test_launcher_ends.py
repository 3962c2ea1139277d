"""How the launcher ends tasks: at their time, when told, and with everything they started."""

import os
import signal
import time
from pathlib import Path

import pytest

from banyan.worker.timers import now
from tests.harness import eventually
from tests.worker.launched import Launched, alive, carrying

IGNORES_TERM = "trap '' TERM; echo ready; while :; do sleep 0.05; done"

# What a daemon does: away from its parent, into a session of its own, twice.
DAEMON = """
import os, sys, time
if os.fork():
    os.wait(); time.sleep(float(sys.argv[2])); sys.exit()
os.setsid()
if os.fork():
    os._exit(0)
os.setsid() if os.getpid() != os.getsid(0) else None
if "bare" in sys.argv:
    os.execve("/bin/sh", ["sh", "-c", "echo $$ > " + sys.argv[1] + "; exec sleep 1000"], {})
print(os.getpid(), file=open(sys.argv[1] + ".new", "w"), flush=True)
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(1000)
"""


def daemon(launcher: Launched, pid_file: Path, seconds: float, *more: str, **keys: object) -> str:
    arguments = [str(pid_file), str(seconds), *more]
    return launcher.start(["python3", "-c", DAEMON, *arguments], **keys)


def pid_in(pid_file: Path) -> int:
    eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    return int(pid_file.read_text())


def test_a_timeout_ends_the_task_and_is_told(launcher: Launched):
    begun = time.monotonic()
    attempt = launcher.shell("exec sleep 100", timeout_seconds=0.3)
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["signal"]) == ("timeout", signal.SIGTERM)
    assert 0.3 <= time.monotonic() - begun < 5


def test_a_timeout_leaves_a_quicker_task_alone(launcher: Launched):
    assert launcher.run("exit 4", timeout_seconds=30)[0]["code"] == 4


def test_a_stopped_task_gets_sigterm_first_and_may_clean_up(launcher: Launched):
    attempt = launcher.shell(
        "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    )
    launcher.says(attempt, b"ready")
    launcher.stop(attempt)
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["code"]) == ("cancelled", 7)
    assert launcher.output(attempt).endswith(b"bye\n")


def test_a_task_that_ignores_sigterm_is_killed_after_its_time(launcher: Launched):
    attempt = launcher.shell(IGNORES_TERM)
    launcher.says(attempt, b"ready")
    begun = time.monotonic()
    launcher.stop(attempt, grace_seconds=0.4)
    ended = launcher.ended(attempt)
    assert (ended["why"], ended["signal"]) == ("cancelled", signal.SIGKILL)
    assert 0.4 <= time.monotonic() - begun < 5


def test_a_second_stop_can_shorten_the_time(launcher: Launched):
    attempt = launcher.shell(IGNORES_TERM)
    launcher.says(attempt, b"ready")
    launcher.stop(attempt, grace_seconds=600)
    launcher.stop(attempt, grace_seconds=0.1, why="released")
    assert launcher.ended(attempt, seconds=5)["why"] == "cancelled"


def test_a_frozen_task_hears_sigterm(launcher: Launched):
    attempt = launcher.shell("echo ready; kill -STOP $$; exec sleep 100")
    launcher.says(attempt, b"ready")
    launcher.stop(attempt, grace_seconds=60)
    assert launcher.ended(attempt, seconds=5)["signal"] == signal.SIGTERM


def test_the_whole_group_is_stopped(launcher: Launched):
    attempt = launcher.shell("sleep 1000 & sleep 1000 & echo ready; wait")
    launcher.says(attempt, b"ready")
    assert len(carrying("BANYAN_ATTEMPT", attempt)) == 3
    launcher.stop(attempt)
    launcher.ended(attempt)
    assert carrying("BANYAN_ATTEMPT", attempt) == []


def test_children_in_the_background_do_not_outlive_their_task(launcher: Launched):
    attempt = launcher.shell("sleep 1000 & echo $! ; exit 3")
    assert launcher.ended(attempt)["code"] == 3
    assert not alive(int(launcher.output(attempt)))


def test_children_that_ignore_sigterm_do_not_outlive_a_cancelled_task(launcher: Launched):
    attempt = launcher.shell("(trap '' TERM; sleep 1000) & echo ready; wait")
    launcher.says(attempt, b"ready")
    launcher.stop(attempt, grace_seconds=0.3)
    launcher.ended(attempt)
    assert carrying("BANYAN_ATTEMPT", attempt) == []


def test_a_child_that_cleans_up_gets_its_time_even_when_the_leader_is_gone(
    launcher: Launched, tmp_path: Path
):
    file = tmp_path / "cleaned"
    slow = (
        f"trap 'sleep 0.3; echo yes > {file}; exit' TERM; echo ready; while :; do sleep 0.05; done"
    )
    attempt = launcher.shell(f'sh -c "{slow}" & exec sleep 1000')
    launcher.says(attempt, b"ready")
    launcher.stop(attempt, grace_seconds=20)
    assert launcher.ended(attempt)["signal"] == signal.SIGTERM
    assert file.read_text() == "yes\n"


@pytest.mark.parametrize("bare", [(), ("bare",)], ids=["marked", "environment cleared"])
def test_a_daemon_does_not_outlive_its_task(launcher: Launched, tmp_path: Path, bare: tuple):
    pid_file = tmp_path / "pid"
    attempt = daemon(launcher, pid_file, 0.5, *bare)
    pid = pid_in(pid_file)
    assert alive(pid)
    assert launcher.ended(attempt)["code"] == 0
    assert not alive(pid)


@pytest.mark.parametrize("bare", [(), ("bare",)], ids=["marked", "environment cleared"])
def test_a_daemon_does_not_outlive_a_cancel(launcher: Launched, tmp_path: Path, bare: tuple):
    pid_file = tmp_path / "pid"
    attempt = daemon(launcher, pid_file, 1000, *bare)
    pid = pid_in(pid_file)
    launcher.stop(attempt, grace_seconds=0.5)
    launcher.ended(attempt)
    assert not alive(pid)


def test_a_daemon_of_one_task_survives_the_end_of_another(launcher: Launched, tmp_path: Path):
    pid_file = tmp_path / "pid"
    attempt = daemon(launcher, pid_file, 1000)
    pid = pid_in(pid_file)
    launcher.run("sleep 1000 & exit 0")
    assert alive(pid)
    launcher.stop(attempt)
    launcher.ended(attempt)
    assert not alive(pid)


def test_a_daemon_that_nobody_can_place_lives_as_long_as_any_task_that_may_own_it(
    launcher: Launched, tmp_path: Path
):
    """Without its environment it may be of either; to kill the wrong one would be worse."""
    pid_file = tmp_path / "pid"
    owner = daemon(launcher, pid_file, 1000, "bare")
    pid = pid_in(pid_file)
    other = launcher.shell("exec sleep 1000")
    launcher.until("started", other)
    launcher.run("exit 0")
    assert alive(pid)
    for attempt in (owner, other):
        launcher.stop(attempt)
        launcher.ended(attempt)
    assert not alive(pid)


def test_processes_that_keep_forking_are_caught(launcher: Launched):
    restless = """
import os, time
while True:
    if os.fork():
        time.sleep(0.002); os._exit(0)
    os.setsid()
"""
    attempt = launcher.shell(f"echo ready; exec python3 -c '{restless}'")
    launcher.ended(attempt)
    assert carrying("BANYAN_ATTEMPT", attempt) == []


def test_the_time_of_the_lease_ends_everything(launcher: Launched):
    polite = launcher.shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    stubborn = launcher.shell(IGNORES_TERM)
    for attempt in (polite, stubborn):
        launcher.says(attempt, b"ready")
    until = now() + 0.5
    launcher.say({"do": "trust", "until": until, "lease_end": until + 1})
    assert launcher.until("trusted")["until"] == until
    assert launcher.ended(polite)["why"] == "lease"
    assert launcher.ended(stubborn)["signal"] == signal.SIGKILL
    assert until < now() < until + 1 + 0.3


def test_a_renewed_lease_lets_tasks_go_on(launcher: Launched):
    attempt = launcher.shell("exec sleep 1000")
    launcher.until("started", attempt)
    first = now() + 0.3
    launcher.say({"do": "trust", "until": first, "lease_end": first + 0.1})
    launcher.say({"do": "trust", "until": first + 1000, "lease_end": first + 1010})
    eventually(lambda: now() > first + 0.3, every_seconds=0.05)
    launcher.run("true")
    assert not any(m["is"] == "ended" and m["attempt"] == attempt for m in launcher.heard)


def test_tasks_that_end_by_signals_of_others_do_not_disturb_the_launcher(launcher: Launched):
    attempts = [launcher.shell("exec sleep 1000") for _ in range(20)]
    for attempt in attempts:
        os.kill(launcher.until("started", attempt)["pid"], signal.SIGKILL)
    for attempt in attempts:
        assert launcher.ended(attempt)["signal"] == signal.SIGKILL


def test_signals_to_the_launcher_mean_nothing(launcher: Launched):
    attempt = launcher.shell("echo ready; sleep 0.5; exit 6")
    launcher.says(attempt, b"ready")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        launcher.process.send_signal(number)
    assert launcher.ended(attempt)["code"] == 6
