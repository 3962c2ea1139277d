"""A task reads its own output back, which the launcher has already been told of."""

import os
import select
from pathlib import Path

import pytest

from banyan.worker import groups
from banyan.worker.spawning import Spawner
from tests.worker.launched import PATH, Launched
from tests.worker.test_run_as import needs_root, nobody

# The last byte is the one for which a launcher would wait: the pipe stays open, and empty.
STEAL = """
import os, time
own = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
for _ in range(2000):
    os.write(1, b"x")
    try:
        os.read(own, 100)
    except BlockingIOError:
        pass
os.write(2, b"stolen")
time.sleep(1000)
"""


def test_others_are_served_while_tasks_take_their_output_back(launcher: Launched) -> None:
    thieves = [launcher.start(["python3", "-c", STEAL]) for _ in range(20)]
    for thief in thieves:
        launcher.says(thief, b"stolen", seconds=60)
    assert launcher.run("echo hello")[1] == b"hello\n"
    for thief in thieves:
        launcher.stop(thief, grace_seconds=0)
    for thief in thieves:
        assert launcher.ended(thief)["signal"] == 9


def test_so_it_is_for_the_next_agent(launcher: Launched) -> None:
    thieves = [launcher.start(["python3", "-c", STEAL]) for _ in range(10)]
    for thief in thieves:
        launcher.until("started", thief)
    launcher.hang_up()
    held = launcher.call_again()["running"]
    assert {each["attempt"] for each in held} == set(thieves)
    for thief in thieves:
        launcher.stop(thief, grace_seconds=0)
        launcher.ended(thief)
    assert launcher.run("echo hello")[1] == b"hello\n"


@pytest.mark.parametrize("other", [False, pytest.param(True, marks=needs_root)])
def test_what_was_announced_and_is_gone_is_not_waited_for(other: bool) -> None:
    """The order that the others leave to chance."""
    user = {**nobody(), "group": groups.FIRST} if other else None
    started = Spawner().spawn(["sleep", "1000"], {"PATH": PATH}, "/", user)
    try:
        if started.begins is not None:
            assert os.get_blocking(started.begins) is False
            select.select([started.begins], [], [], 20)
        for pipe in (started.stdout, started.stderr):
            output = Path(f"/proc/{started.pid}/fd/{1 if pipe == started.stdout else 2}")
            with output.open("wb", buffering=0) as writing, output.open("rb", buffering=0) as own:
                writing.write(b"x")
                assert select.select([pipe], [], [], 20)[0]
                assert own.read(1) == b"x"
                with pytest.raises(BlockingIOError):
                    os.read(pipe, 1)
            said = Path(f"/proc/{started.pid}/fdinfo/1").read_text().split("flags:")[1].split()[0]
            assert not int(said, 8) & os.O_NONBLOCK  # the task's end is as it always was
    finally:
        os.kill(started.pid, 9)
        os.waitpid(started.pid, 0)
