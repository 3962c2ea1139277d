"""What an attempt uses, told while it runs, in bounded space."""

from banyan.worker import gpus
from banyan.worker.samples import Samples
from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.launched import Launched

MIB = 1 << 20

BUSY = """
import os, time
x = bytearray(40 << 20)
if os.fork() == 0:
    y = bytearray(30 << 20)
    while True:
        pass
time.sleep(1000)
"""


def sample(number: int) -> dict[str, object]:
    return {
        "time": float(number),
        "resident_memory_bytes": number,
        "virtual_memory_bytes": number,
        "utilization_percent": 1.0,
        "peak_memory_bytes": 1000 - number,
    }


def test_the_whole_tree_is_in_a_sample(launcher: Launched):
    attempt = launcher.start(["python3", "-c", BUSY])
    first = launcher.until("sample", attempt)
    assert 70 * MIB < first["resident_memory_bytes"] < 200 * MIB
    assert first["virtual_memory_bytes"] > first["resident_memory_bytes"]
    assert first["peak_memory_bytes"] >= first["resident_memory_bytes"]
    assert 5 < first["utilization_percent"] <= 250
    launcher.stop(attempt, grace_seconds=0)
    assert launcher.ended(attempt)["peak_memory_bytes"] >= first["peak_memory_bytes"]


def test_a_task_that_is_soon_over_has_no_sample(launcher: Launched):
    launcher.run("true")
    assert not any(message["is"] == "sample" for message in launcher.heard)


def test_samples_reach_the_attempt_while_it_runs(crew: Crew):
    crew.worker("one", "--cores", "1", "--memory", "1 GiB")
    task = crew.submit(["python3", "-c", BUSY], requested_resources={"memory": "200 MiB"})
    attempt = eventually(
        lambda: next((one for one in crew.attempts(task) if one.get("memory_usage")), None), 20
    )
    assert attempt["memory_usage"][0]["resident_memory_bytes"] > 70 * MIB
    assert attempt["cpu_utilization"][0]["utilization_percent"] > 0
    assert attempt["peak_memory_bytes"] >= attempt["memory_usage"][0]["resident_memory_bytes"]
    assert crew.state_of(task) == "running"


def test_samples_that_nobody_takes_do_not_pile_up():
    samples = Samples()
    assert samples.as_report() == {}
    for number in range(100):
        samples.add(sample(number))
    report = samples.as_report()
    assert [each["resident_memory_bytes"] for each in report["memory_usage"]] == [*range(40, 100)]
    assert report["peak_memory_bytes"] == 960
    assert "gpu_usage" not in report
    end = samples.end
    samples.add(sample(100))
    samples.delivered(end)
    assert len(samples.as_report()["cpu_utilization"]) == 1
    samples.delivered(end)
    assert len(samples.as_report()["cpu_utilization"]) == 1
    samples.delivered(samples.end)
    assert samples.as_report() == {}


def test_gpus_go_with_the_sample():
    samples = Samples()
    used = {"ordinal": 1, "used_memory_bytes": 7, "utilization_percent": 50}
    samples.add({**sample(0), "gpus": [used]})
    time = "1970-01-01T00:00:00.000Z"
    assert samples.as_report()["gpu_usage"] == [{"time": time, **used}]
    assert gpus.usage_of([]) == []
