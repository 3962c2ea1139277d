"""The environment of a task, and its end in words."""

from pathlib import Path
from typing import Any

import pytest

from banyan.domain.resources import Capacity
from banyan.worker.endings import end_of, time_text
from banyan.worker.environment import base_environment, command_argv, own_programs, task_environment
from banyan.worker.holding import Holding
from banyan.worker.identity import User
from banyan.worker.leases import trusted_until
from banyan.worker.ledger import Ledger
from banyan.worker.options import Options

TASK = {
    "_id": "t",
    "name": "n",
    "token": "secret of the attempt",
    "attempt_id": "a",
    "attempt_count": 2,
    "granted_resources": {"cores": 1.5, "memory_bytes": 7},
    "env": {"PATH": "/task", "BANYAN_ATTEMPT": "forged", "LD_LIBRARY_PATH": "/lib"},
}


def test_only_known_names_of_the_worker_reach_a_task():
    own = {"PATH": "/bin", "LC_ALL": "C", "BANYAN_TOKEN": "secret", "LD_PRELOAD": "x", "HOME": "/h"}
    assert base_environment(own) == {"PATH": "/bin", "LC_ALL": "C", "HOME": "/h"}


def test_the_socket_of_the_server_is_named_to_those_who_may_use_it():
    assert base_environment({}, socket="/d/s")["BANYAN_SOCKET"] == "/d/s"
    other = User("nobody", 65534, 65534, (), "/", "")
    assert "BANYAN_SOCKET" not in base_environment({}, other, socket="/d/s")
    assert "BANYAN_SOCKET" not in base_environment({"BANYAN_SOCKET": "/of/the/worker"})


def test_the_banyan_of_the_worker_is_found_after_all_else():
    assert base_environment({"PATH": "/a:/b"}, programs="/opt/x")["PATH"] == "/a:/b:/opt/x"
    assert base_environment({"PATH": "/a:/opt/x"}, programs="/opt/x")["PATH"] == "/a:/opt/x"
    assert base_environment({}, programs="/opt/x")["PATH"].endswith(":/opt/x")
    assert (Path(own_programs()) / "banyan").exists()


def test_a_task_decides_over_the_machine_and_banyan_over_the_task():
    made = task_environment({"PATH": "/bin", "TZ": "UTC"}, TASK, "http://x", "w", [2, 0], True)
    assert (made["PATH"], made["TZ"], made["LD_LIBRARY_PATH"]) == ("/task", "UTC", "/lib")
    assert (made["BANYAN_ATTEMPT"], made["BANYAN_ATTEMPT_COUNT"]) == ("a", "2")
    assert (made["BANYAN_GPUS"], made["CUDA_VISIBLE_DEVICES"]) == ("2,0", "2,0")
    assert made["BANYAN_CORES"] == "1.5"
    assert list(made)[:2] == ["BANYAN_WORKER_ID", "BANYAN_ATTEMPT"], "found at once by who looks"


@pytest.mark.parametrize(("cores", "threads"), [(0, "1"), (0.5, "1"), (1.5, "1"), (4, "4")])
def test_libraries_start_as_many_threads_as_there_are_cores(cores: float, threads: str):
    task = {**TASK, "granted_resources": {"cores": cores, "memory_bytes": 7}}
    made = task_environment({}, task, "http://x", "w", [], False)
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS", "NUMBA", "RAYON")
    assert {made[f"{name}_NUM_THREADS"] for name in names} == {threads}


def test_what_its_owner_says_of_threads_goes_before():
    def made(**env: str) -> dict[str, str]:
        return task_environment({}, {**TASK, "env": env}, "http://x", "w", [], False)

    one = made(MKL_NUM_THREADS="7")
    assert (one["MKL_NUM_THREADS"], one["OMP_NUM_THREADS"]) == ("7", "1")
    every = made(OMP_NUM_THREADS="7")  # to which the others keep, where they are not set
    assert every["OMP_NUM_THREADS"] == "7"
    assert not {"MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"} & every.keys()
    assert every["NUMBA_NUM_THREADS"] == "1"


def test_a_name_that_no_process_could_have_starts_all_the_same():
    made = task_environment({}, {**TASK, "name": "a\0b"}, "http://x", "w", [], False)
    assert made["BANYAN_TASK_NAME"] == "ab"


def test_without_gpus_nothing_is_said_of_them():
    made = task_environment({}, TASK, "http://x", "w", [], False)
    assert "CUDA_VISIBLE_DEVICES" not in made


@pytest.mark.parametrize(("count", "seen"), [(None, None), (0, "")])
def test_an_owner_who_gives_no_gpus_shows_none(count: int | None, seen: str | None):
    options = Options("http://x", Path("/nowhere"), gpu_count=count)
    ledger: Any = Ledger(Capacity(cores=1, memory_bytes=1))
    nobody: Any = None
    holding = Holding(options, nobody, nobody, ledger, nobody)
    process = holding._process_of({**TASK, "command": "true"}, [], ())
    assert process["env"].get("CUDA_VISIBLE_DEVICES") == seen


def test_a_text_goes_to_the_shell_and_a_list_does_not():
    assert command_argv("a b") == ["/bin/sh", "-c", "a b"]
    assert command_argv(["a b"]) == ["a b"]


@pytest.mark.parametrize(
    ("ended", "state", "status"),
    [
        ({"code": 0}, "terminated", "success"),
        ({"code": 3}, "terminated", "failure (3)"),
        ({"code": None, "signal": 9}, "terminated", "failure (SIGKILL)"),
        ({"code": None, "signal": 15, "why": "timeout"}, "terminated", "timeout"),
        ({"code": 0, "why": "cancelled"}, "cancelled", "cancelled"),
        ({"code": 0, "why": "lease"}, "terminated", "lost"),
    ],
)
def test_ends_in_words(ended: dict, state: str, status: str):
    end = end_of({"signal": None, "why": None, "time_ended": 0.0, **ended})
    assert (end["state"], end["exit_status"]) == (state, status)
    assert end["time_terminated"] == "1970-01-01T00:00:00.000Z"


def test_what_would_not_end_is_named():
    ended = {"code": 0, "signal": None, "why": None, "time_ended": 0.0, "left": [12, 13]}
    assert end_of(ended)["reason"] == "these processes would not end: 12, 13"


def test_times_have_milliseconds():
    assert time_text(1795331414.0426) == "2026-11-22T07:10:14.042Z"


@pytest.mark.parametrize(("lease", "trusted"), [(60, 50), (600, 590), (3, 2.5)])
def test_the_lease_is_trusted_from_the_sending_and_less_a_margin(lease: float, trusted: float):
    assert trusted_until(100.0, lease) == 100.0 + trusted
