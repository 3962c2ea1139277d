"""The Executor as a program uses it: real futures, of real tasks, on a whole stack."""

import os
import pydoc
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import requests

import banyan
from banyan import Client, Executor, TaskFailed
from banyan.errors import BanyanError
from tests.e2e.stack import Stack
from tests.harness import eventually, marked_processes
from tests.harness.processes import ROOT

NOBODY = "a-queue-that-nobody-serves"


@pytest.fixture(autouse=True)
def own_profile(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_CONFIG", stack.environment["BANYAN_CONFIG"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def executor(stack: Stack) -> Iterator[Executor]:
    executor = Executor()
    yield executor
    executor.shutdown(wait=True, cancel_futures=True)


@pytest.fixture
def requests_sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each request that leaves, as it leaves."""
    sent: list[str] = []
    send: Callable[..., requests.Response] = requests.Session.send

    def counted(self: requests.Session, request: Any, **more: Any) -> requests.Response:
        sent.append(f"{request.method} {request.url}")
        return send(self, request, **more)

    monkeypatch.setattr(requests.Session, "send", counted)
    return sent


# --- commands ----------------------------------------------------------------------------


def test_a_commands_result_is_what_it_printed(executor: Executor) -> None:
    argv = executor.submit(["printf", "%s", "a b"])
    line = executor.submit("echo $KEY | tr a-z A-Z; echo oops >&2", env={"KEY": "value"})
    assert argv.result(60) == "a b"
    assert line.result(60) == "VALUE\n"


def test_arguments_stand_where_the_braces_are(executor: Executor) -> None:
    assert list(executor.map(["echo", "{}-{}"], ["a b", "c"], [1, 2], timeout=60)) == [
        "a b-1\n", "c-2\n",
    ]  # fmt: skip
    assert executor.submit("echo {}", "; exit 3").result(60) == "; exit 3\n"
    with pytest.raises(TypeError, match="1 arguments"):
        executor.submit(["true"], 1)


def test_a_failure_says_how_and_shows_the_last_lines(executor: Executor) -> None:
    future = executor.submit("seq 100; echo why >&2; exit 3", retries=1)
    with pytest.raises(TaskFailed, match=r"failure \(3\)") as caught:
        future.result(60)
    failed = caught.value
    assert (failed.outcome, failed.exit_status) == ("failure", "failure (3)")
    assert failed.output.splitlines()[-2:] == ["100", "why"]
    assert "why" in str(failed)
    assert len(failed.output.splitlines()) == 20
    assert copy(failed).exit_status == "failure (3)"  # as pickle would make it
    late = executor.submit("sleep 60", timeout=0.3).exception(60)
    assert isinstance(late, TaskFailed)
    assert late.outcome == "timeout"


def test_fields_of_the_task_come_from_both(stack: Stack) -> None:
    with Executor(cores=2, tags={"set": "e"}, env={"A": "1"}, name="all") as executor:
        future = executor.submit("true", cores=1, memory="64 MiB", env={"B": "2"}, priority=3)
        more = executor.asking(queue=NOBODY, name="mine").submit("true", priority=4)
        more.cancel()
    task = stack.json("show", "--json", future.task_id)
    assert task["requested_resources"]["cpu_cores"]["count"] == 1
    assert task["requested_resources"]["cpu_memory_bytes"] == 64 * 2**20
    assert (task["env"], task["name"], task["priority"]) == ({"A": "1", "B": "2"}, "all", 3)
    assert task["tags"] == {"set": "e", "executor": executor.id}


def test_after_waits_for_futures(executor: Executor) -> None:
    first = executor.submit("sleep 0.2; date +%s%N")
    second = executor.submit("date +%s%N", after=first)
    assert int(second.result(60)) > int(first.result(60))
    bad = executor.submit("exit 1")
    never = executor.submit("true", after=[bad, first])
    rescue = executor.submit("true", after_failure=bad)
    with pytest.raises(futures.CancelledError):
        never.result(60)
    rescue.result(60)


# --- the standard library's ways ---------------------------------------------------------


def test_as_completed_and_wait(executor: Executor) -> None:
    slow = executor.submit("sleep 1; echo slow")
    quick = executor.submit("echo quick")
    bad = executor.submit("exit 2")
    assert list(futures.as_completed([slow, quick, bad], timeout=60))[-1] is slow
    never = executor.submit("true", queue=NOBODY)
    done, open_ones = futures.wait([quick, never], 60, futures.FIRST_COMPLETED)
    assert (done, open_ones) == ({quick}, {never})
    with pytest.raises(futures.TimeoutError):
        never.result(0.1)
    called: list[Any] = []
    never.add_done_callback(called.append)
    never.cancel()
    assert called == [never]


def test_cancel_before_while_and_after(executor: Executor, stack: Stack) -> None:
    waiting = executor.submit("true", queue=NOBODY)
    running = executor.submit("sleep 600")
    ended = executor.submit("true")
    ended.result(60)
    eventually(lambda: stack.text("ls", "-q", "--state", "running") == running.task_id, 30)
    assert waiting.cancel()
    assert running.cancel()
    assert not ended.cancel()
    assert waiting.cancelled()
    assert running.cancel()
    done, _ = futures.wait([waiting, running, ended], 10)
    assert len(done) == 3
    eventually(lambda: stack.text("ls", "-q", "--state", "open") == "", 30)


def test_who_cancels_elsewhere_is_heard_of(executor: Executor, stack: Stack) -> None:
    future = executor.submit("true", queue=NOBODY)
    eventually(lambda: stack.text("ls", "-q", "--queue", NOBODY, "--state", "open"))
    stack.call("cancel", future.task_id)
    with pytest.raises(futures.CancelledError):
        future.result(30)


def test_thousands_take_few_requests(stack: Stack, requests_sent: list[str]) -> None:
    with Executor(queue=NOBODY) as executor:
        waiting = [executor.submit("true") for _ in range(3000)]
        executor.shutdown(wait=False, cancel_futures=True)
        done, _ = futures.wait(waiting, 60)
    assert len(done) == 3000
    assert all(future.cancelled() for future in waiting)
    posted = [one for one in requests_sent if one.startswith("POST")]
    assert len(posted) <= 30, posted  # a busy machine gathers less at a time
    assert len(requests_sent) <= 60


def test_nothing_is_asked_while_nothing_happens(
    executor: Executor, stack: Stack, requests_sent: list[str]
) -> None:
    waiting = [executor.submit("true", queue=NOBODY) for _ in range(300)]
    other = executor.submit("sleep 4; echo")
    eventually(lambda: stack.text("ls", "-q", "--state", "running") == other.task_id, 30)
    before = len(requests_sent)
    futures.wait([other], 60)
    # The answer of the one that is held, and the next one.
    assert len(requests_sent) - before <= 2, requests_sent[before:]
    assert not any(future.done() for future in waiting)


def test_one_that_is_submitted_while_others_are_watched_is_heard_of_too(
    executor: Executor, requests_sent: list[str]
) -> None:
    first = executor.submit("true", queue=NOBODY)
    # The first is answered at once, the second is held.
    eventually(lambda: sum("_updated" in one for one in requests_sent) >= 2)
    later = executor.submit("echo later")
    assert later.result(20) == "later\n"  # the next look at each open task comes after 30 s
    assert not first.done()


def test_one_that_is_refused_does_not_take_the_others_along(executor: Executor) -> None:
    good = [executor.submit("echo good") for _ in range(3)]
    bad = executor.submit("true", nonsense=1)
    more = [executor.submit("echo good") for _ in range(3)]
    assert {future.result(60) for future in good + more} == {"good\n"}
    error = bad.exception(60)
    assert isinstance(error, BanyanError)
    assert error.word == "invalid"


def test_it_outlives_a_server_that_dies(executor: Executor, stack: Stack, tmp_path: Path) -> None:
    go = tmp_path / "go"
    future = executor.submit(f"until test -e {go}; do sleep 0.1; done; echo still here")
    eventually(lambda: stack.text("ls", "-q", "--state", "running") == future.task_id, 30)
    for pid, command in marked_processes(stack.processes.mark).items():
        if "banyan.server.serve" in command:
            os.kill(pid, signal.SIGKILL)
    go.touch()
    assert future.result(90) == "still here\n"


def test_after_the_end_nothing_is_taken() -> None:
    with Executor() as executor:
        future = executor.submit("echo last")
    assert future.result(0) == "last\n"
    with pytest.raises(RuntimeError):
        executor.submit("true")


# --- callables ---------------------------------------------------------------------------


def test_a_callable_returns_what_it_returns(executor: Executor) -> None:
    offset = 3

    def add(one: int, *, other: int) -> dict[str, Any]:
        sys.stdout.write("no newline at the end")
        return {"sum": one + other + offset, "pid": os.getpid()}

    told = executor.submit(add, 1, other=2).result(60)
    assert told["sum"] == 6
    assert told["pid"] != os.getpid()
    assert list(executor.asking(cores=1).map(lambda n: n * n, range(5), timeout=60)) == [
        0, 1, 4, 9, 16,
    ]  # fmt: skip
    assert len(executor.submit(lambda: os.urandom(2**20)).result(60)) == 2**20


def test_a_callable_raises_what_it_raises(executor: Executor) -> None:
    class OwnError(Exception):
        pass

    def fail(error: Exception) -> None:
        sys.stdout.write("before\n")
        raise error

    with pytest.raises(ValueError, match="no such value") as caught:
        executor.submit(fail, ValueError("no such value")).result(60)
    cause = caught.value.__cause__
    assert isinstance(cause, TaskFailed)
    assert cause.exit_status == "failure (1)"
    assert "before" in cause.output
    assert "banyan-answer" not in cause.output
    held = executor.submit(lambda: fail(OwnError(n for n in ())))
    with pytest.raises(RuntimeError, match="OwnError"):
        held.result(60)
    with pytest.raises(TaskFailed, match="SIGKILL"):
        executor.submit(lambda: os.kill(os.getpid(), 9)).result(60)


def test_a_call_that_is_too_large_says_what_to_do(executor: Executor) -> None:
    with pytest.raises(ValueError, match="into a file"):
        executor.submit(len, os.urandom(100_000))


@pytest.mark.parametrize("start", [["beside/program.py"], ["-c", "{program}"]])
def test_a_callable_finds_the_modules_of_its_program(
    stack: Stack, tmp_path: Path, start: list[str]
) -> None:
    """Beside the script, or in the current directory where there is none."""
    (tmp_path / "beside").mkdir()
    program = "from banyan import Executor\nimport own\nwith Executor() as executor:\n"
    program += "    print(executor.submit(own.double, 21).result(60))\n"
    (tmp_path / "beside" / "program.py").write_text(program)
    home = tmp_path / ("beside" if start[0] != "-c" else ".")
    (home / "own.py").write_text("def double(number):\n    return 2 * number\n")
    command = [sys.executable, *(each.format(program=program) for each in start)]
    environment = {**os.environ, **stack.environment}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=90)
    assert done.stdout == b"42\n", done.stderr


# --- what is shown, what is loaded -------------------------------------------------------


def test_notebooks_get_html(executor: Executor) -> None:
    future = executor.submit("true", name="<b>")
    future.result(60)
    assert "&lt;b&gt;" in future._repr_html_()
    assert "succeeded" in future._repr_html_()
    assert "1 succeeded" in executor._repr_html_()
    with Client() as client:
        assert "terminated" in client._repr_html_()


def test_to_import_banyan_loads_nothing() -> None:
    program = (
        "import sys, banyan; assert not {'requests', 'cloudpickle'} & sys.modules.keys();"
        "from banyan import Client, Executor; assert 'cloudpickle' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(ROOT), check=True)


def test_help_shows_what_is_for_programs() -> None:
    told = pydoc.plaintext.document(banyan)
    assert "class Executor(" in told
    assert "class Client(" in told
