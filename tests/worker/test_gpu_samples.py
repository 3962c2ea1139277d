"""Samples of attempts that have GPUs do not wait in the agent's loop."""

import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from banyan.domain.resources import Capacity, Gpu, Grant
from banyan.worker import gpus
from banyan.worker.gpu_samples import GpuSamples
from banyan.worker.holding import Holding
from banyan.worker.ledger import Ledger
from banyan.worker.mailbox import Mailbox
from banyan.worker.options import Options
from banyan.worker.reports import Reports

USED = [{"ordinal": 0, "used_memory_bytes": 7}]


def test_a_driver_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch):
    answers = threading.Event()

    def usage_of(indexes: Sequence[int]) -> list[dict[str, Any]]:
        answers.wait(30)
        return USED

    monkeypatch.setattr(gpus, "usage_of", usage_of)
    told: queue.Queue[tuple[str, Any]] = queue.Queue()
    samples = GpuSamples(lambda attempt, sample: told.put((attempt, sample)))
    before = time.monotonic()
    samples.add("none", {"time": 0}, ())
    assert told.get(timeout=5) == ("none", {"time": 0})
    for number in range(100):
        samples.add("one", {"time": number}, (0,))
    assert time.monotonic() - before < 5
    assert told.get(timeout=5)[1].keys() == {"time"}, "rather without GPUs than not at all"
    answers.set()
    while "gpus" not in (sample := told.get(timeout=5)[1]):
        pass
    assert sample == {"time": 0, "gpus": USED}


def test_a_library_that_fails_in_its_own_way_ends_no_samples(monkeypatch: pytest.MonkeyPatch):
    def usage_of(indexes: Sequence[int]) -> list[dict[str, Any]]:
        raise AttributeError("another kind of library")

    monkeypatch.setattr(gpus, "usage_of", usage_of)
    told: queue.Queue[tuple[str, Any]] = queue.Queue()
    samples = GpuSamples(lambda attempt, sample: told.put((attempt, sample)))
    for _ in range(2):
        samples.add("one", {"time": 0}, (0,))
        assert told.get(timeout=5) == ("one", {"time": 0, "gpus": []})


def test_the_loop_hears_a_sample_and_goes_on(monkeypatch: pytest.MonkeyPatch):
    asked, answers = threading.Event(), threading.Event()

    def usage_of(indexes: Sequence[int]) -> list[dict[str, Any]]:
        asked.set()
        answers.wait(4)
        return USED

    monkeypatch.setattr(gpus, "usage_of", usage_of)
    ledger = Ledger(Capacity(cores=1, memory_bytes=1, gpus=(Gpu(),)))
    ledger.take("a", Grant(gpu_count=1))
    told: queue.Queue[Any] = queue.Queue()
    reports: Any = type("Heard", (), {"sample": lambda self, *sample: told.put(sample)})()
    nobody: Any = None
    holding = Holding(Options("http://x", Path("/nowhere")), nobody, nobody, ledger, reports)
    before = time.monotonic()
    holding.hear({"is": "sample", "attempt": "a"})
    assert time.monotonic() - before < 2
    assert asked.wait(5)
    answers.set()
    assert told.get(timeout=5) == ("a", {"is": "sample", "attempt": "a", "gpus": USED})


def test_a_sample_that_comes_after_the_end_is_left_out():
    reports = Reports(threading.Condition(), Mailbox())
    reader: Any = type("Read", (), {"complete": lambda self, inline, size: None})()
    reports.follow("a", "task", "token", reader)
    reports.ended("a", {}, None, 0)
    reports.sample("a", {"time": 0.0})
    assert reports._told["a"].samples.as_report() == {}
