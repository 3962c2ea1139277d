"""It happened, but the worker was told that it failed: nothing is lost, nothing done twice."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.worker.crew import Crew
from tests.worker.proxy import Proxy


@pytest.fixture
def proxy(crew: Crew) -> Iterator[Proxy]:
    """A wire between the workers of the crew and their server."""
    own = Proxy(crew.server.url)
    crew.url = own.url
    yield own
    own.close()


def test_a_claim_whose_answer_was_lost_brings_the_same_tasks_again(
    crew: Crew, proxy: Proxy, tmp_path: Path
):
    crew.worker("one", "--cores", "2")
    crew.registered()
    proxy.lose_next(b"POST /tasks/claim", b'"token"', times=3)
    file = tmp_path / "runs"
    tasks = [crew.submit(f"echo {n} >> {file}") for n in range(6)]
    for task in tasks:
        assert crew.ended(task, seconds=9)["outcome"] == "success", "before beats take it back"
        assert crew.statuses(task) == ["success"]
    assert sorted(file.read_text().split()) == sorted(map(str, range(6)))
    assert len(proxy.lost) == 3


def test_a_report_whose_answer_was_lost_is_told_again(crew: Crew, proxy: Proxy):
    crew.worker("one", "--cores", "1")
    crew.registered()
    proxy.lose_next(b"PATCH /tasks", b'"terminated"', times=2)
    task = crew.submit("echo hello; exit 3")
    assert crew.ended(task)["reason"] == "failure (3)"
    eventually(lambda: len(proxy.lost) == 2)
    assert crew.ended(crew.submit("true"))["outcome"] == "success"
    assert crew.statuses(task) == ["failure (3)"]
    assert crew.log(task) == b"hello\n"
    eventually(lambda: not list((crew.state() / "output").iterdir()))


def test_output_whose_answer_was_lost_is_not_doubled(crew: Crew, proxy: Proxy):
    crew.worker("one", "--cores", "1")
    crew.registered()
    proxy.lose_next(b"PATCH /tasks", times=3)
    script = "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.15; done"
    task = crew.submit(script)
    assert crew.ended(task)["outcome"] == "success"
    assert crew.log(task) == b"1\n2\n3\n4\n5\n6\n7\n8\n"
    assert len(proxy.lost) == 3


def test_a_cancellation_whose_answer_was_lost_is_heard_with_the_next_beat(crew: Crew, proxy: Proxy):
    crew.worker("one", "--cores", "1")
    task = crew.submit("echo ready; exec sleep 1000")
    crew.says(task, b"ready")
    proxy.lose_next(b"POST /workers/", b'"attempt"')
    crew.server.provider.post(f"tasks/{task}/cancel")
    crew.until(task, "cancelled", seconds=5)
    assert len(proxy.lost) == 1


def test_a_registration_whose_answer_was_lost_is_made_again(crew: Crew, proxy: Proxy):
    proxy.lose_next(b"POST /workers")
    crew.worker("one", "--cores", "1")
    assert crew.ended(crew.submit("true"))["outcome"] == "success"
    assert len(proxy.lost) == 1


def test_a_second_signal_while_it_says_goodbye_does_not_cut_it_short(crew: Crew, proxy: Proxy):
    worker = crew.worker("one", "--cores", "1")
    crew.registered()
    proxy.lose_next(b"DELETE /workers", times=3)
    worker.signal(signal.SIGTERM)
    eventually(lambda: proxy.lost)
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert len(proxy.lost) == 3
    crew.nothing_left_in()
