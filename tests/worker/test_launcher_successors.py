"""Starts that wait in the launcher for another attempt's end."""

import itertools
import os
from pathlib import Path

from banyan.worker.timers import now
from tests.harness import eventually
from tests.worker.launched import Launched, carrying


def blocked(launcher: Launched, path: Path) -> str:
    """An attempt that ends when somebody writes to `path`."""
    os.mkfifo(path)
    attempt = launcher.shell(f"cat {path}")
    launcher.until("started", attempt)
    return attempt


def test_one_starts_when_the_one_before_has_ended(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.shell("exit 3", after=first)
    third = launcher.shell("exit 4", after=first)
    assert launcher.ended(launcher.shell("exit 0"))["code"] == 0
    assert not carrying("BANYAN_ATTEMPT", second), "it has been told of, and waits"
    (tmp_path / "go").write_text("")
    ends = [launcher.ended(each) for each in (first, second, third)]
    assert [end["code"] for end in ends] == [0, 3, 4]
    for before, after in itertools.pairwise(ends):
        assert before["time_ended"] <= after["time_started"]


def test_it_waits_until_nothing_is_left_of_the_one_before(launcher: Launched, tmp_path: Path):
    seen = tmp_path / "seen"
    first = launcher.shell("setsid sleep 1000 & exit 0")
    script = f"grep -lz BANYAN_ATTEMPT={first}$ /proc/[0-9]*/environ > {seen}; exit 0"
    second = launcher.shell(script, after=first)
    launcher.ended(second)
    assert seen.read_text() == ""


def test_after_one_that_has_ended_already_it_starts_at_once(launcher: Launched):
    first = launcher.shell("exit 0")
    launcher.ended(first)
    assert launcher.ended(launcher.shell("exit 3", after=first))["code"] == 3
    assert launcher.ended(launcher.shell("exit 4", after="of no launcher"))["code"] == 4


def test_one_that_is_withdrawn_never_starts_and_lets_the_next_go_on(
    launcher: Launched, tmp_path: Path
):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.shell(f"touch {tmp_path}/started", after=first)
    third = launcher.shell("exit 4", after=second)
    launcher.say({"do": "withdraw", "attempts": [second, first]})
    launcher.until("withdrawn", second)
    (tmp_path / "go").write_text("")
    assert launcher.ended(first)["why"] is None, "it runs: there is nothing to withdraw"
    assert launcher.ended(third)["code"] == 4
    assert not (tmp_path / "started").exists()


def test_a_cancel_finds_it_too(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.shell(f"touch {tmp_path}/started", after=first)
    launcher.stop(second)
    assert launcher.ended(second)["why"] == "cancelled"
    launcher.stop(first)
    launcher.ended(first)
    assert not (tmp_path / "started").exists()


def test_after_one_that_could_not_start_the_next_does(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.start(["/no/such/program"], after=first)
    third = launcher.shell("exit 4", after=second)
    (tmp_path / "go").write_text("")
    assert launcher.ended(second)["code"] == 127
    assert launcher.ended(third)["code"] == 4


def test_it_never_starts_after_its_time(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.shell("exit 0", after=first, before=now())
    (tmp_path / "go").write_text("")
    assert launcher.ended(second)["why"] == "not_started"


def test_the_end_of_the_lease_ends_those_that_wait_first(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.shell(f"touch {tmp_path}/started", after=first)
    launcher.say({"do": "trust", "until": now(), "lease_end": now() + 1})
    launcher.until("withdrawn", second)
    assert launcher.ended(first)["why"] == "lease"
    assert not (tmp_path / "started").exists()


def test_the_next_agent_is_told_of_them(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    second = launcher.shell("exit 3", after=first)
    third = launcher.shell("exit 4", after=first)
    launcher.hang_up()
    hello = launcher.call_again()
    assert [(each["attempt"], each["after"]) for each in hello["waiting"]] == [
        (second, first),
        (third, second),
    ]
    assert [each["keep"] for each in hello["waiting"]] == [{"of": second}, {"of": third}]
    (tmp_path / "go").write_text("")
    assert launcher.ended(third)["code"] == 4


def test_told_twice_it_starts_once(launcher: Launched, tmp_path: Path):
    first = blocked(launcher, tmp_path / "go")
    script = f"echo once >> {tmp_path}/times"
    second = launcher.shell(script, after=first)
    launcher.shell(script, after=first, attempt=second)
    (tmp_path / "go").write_text("")
    launcher.ended(second)
    launcher.hang_up()
    eventually(lambda: not carrying("BANYAN_ATTEMPT", second))
    assert (tmp_path / "times").read_text() == "once\n"
