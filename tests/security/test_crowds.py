"""Thousands of processes that come and go keep neither beats nor looks for long."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from banyan.worker import cell, cells, cgroups, crowd, tree, usage


def test_a_number_that_is_used_anew_spoils_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil lets that through as what the kernel said."""

    class Gone:
        def __init__(self, pid: int) -> None:
            raise FileNotFoundError(f"/proc/{pid}/stat")

    monkeypatch.setattr(psutil, "Process", Gone)
    monkeypatch.setattr(tree, "children", lambda pid: [2, 3] if pid == 1 else [])
    assert usage.Usage(lambda: 1).now() == {"cores": 0.0, "memory_bytes": 0}


def test_of_processes_without_end_a_beat_looks_at_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(tree, "children", lambda pid: [pid + 1, pid + 2])
    looked = usage.Usage(lambda: 1 << 30).now()
    assert looked["memory_bytes"] == 0


def test_what_is_below_a_process_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another's meanwhile, and that one's child may have it."""
    monkeypatch.setattr(tree, "children", lambda pid: {1: [2, 3], 2: [4], 4: [2]}.get(pid, []))
    assert sorted(usage._below(1)) == [2, 3, 4]


def test_all_tasks_have_a_bound_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"/proc/loadavg": "0 0 0 1/100 5", crowd._KERNEL_COUNTS[0]: "4000000"}
    monkeypatch.setattr(cgroups, "text", lambda path: said.get(str(path), ""))
    monkeypatch.setattr(cgroups, "read_short", lambda path: said.get(path, "").encode())
    monkeypatch.setattr(cgroups, "own", lambda controller: iter(()))
    for cores, most in ((1, 4096), (64, 65536)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert crowd.processes_left() == most
    said[crowd._KERNEL_COUNTS[0]] = "1000"
    assert crowd.processes_left() == 775


def test_moves_take_a_part_of_a_look_and_each_has_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Any = cells.Cells(tmp_path)
    monkeypatch.setattr(cells, "_SHARE_SECONDS", 60.0)
    turns: list[str] = []

    def one(name: str) -> Any:
        return SimpleNamespace(shares=name == "d", share=lambda until: turns.append(name))

    some = [one(name) for name in "abcd"]
    for _ in range(3):
        own.share(some)
    assert {"".join(turns[i : i + 3]) for i in (0, 3, 6)} == {"abc", "bca", "cab"}
    monkeypatch.setattr(cells, "_SHARE_SECONDS", -1.0)
    turns.clear()
    own.share(some)
    assert not turns


def test_a_move_ends_in_time(tmp_path: Path) -> None:
    for name in ("memory", "cpu"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tasks").write_text("")
    (tmp_path / "memory/tasks").write_text("1\n2\n3\n")
    one = cell.Cell(str(tmp_path / "memory"), {"cpu": str(tmp_path / "cpu")})
    one.share(time.monotonic() - 1)
    assert (tmp_path / "cpu/tasks").read_text() == ""
    assert not one.shares
    one.share(time.monotonic() + 60)
    assert (tmp_path / "cpu/tasks").read_text() == "3"  # the last: it is no file of the kernel
