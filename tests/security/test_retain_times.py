"""Tasks that are all kept for another time: what retention has to look for stays bounded."""

from itertools import islice

from banyan.domain.retention import LONGEST_MILLISECONDS, Rules, forget_after
from banyan.server.calls import Context, Silent
from banyan.server.store import ageing
from banyan.server.upkeep.retention import Retention
from tests.server.explained import Bench

DAY = 86_400_000


def test_however_many_times_there_are_few_marks():
    step = LONGEST_MILLISECONDS // 200_000
    times = [*range(100_000), *range(0, LONGEST_MILLISECONDS, step)]
    marks = {forget_after({"retain": time, "queue": "q"}, Rules(DAY)) for time in times}
    assert len(marks) < 53 * 128


def test_of_a_thousand_times_few_are_looked_for(bench: Bench):
    tasks = [{"command": "x", "retain": DAY + number} for number in range(1000)]
    bench.ask("provider", "POST", "/tasks", tasks)
    assert len(ageing.own_times(bench.store)) == 1


def test_no_step_of_a_round_takes_many_commands(bench: Bench):
    tasks = [{"command": "x", "retain": 2**number} for number in range(50)]
    bench.ask("provider", "POST", "/tasks", tasks)
    steps = Retention()._steps(Context(bench.store, Silent()))
    counts = []
    while True:
        sent = bench.during(lambda: counts.extend(islice(steps, 1)))
        if not sent:
            break
        assert len(sent) < 10
    assert len(counts) > 40
