"""Programs that submit: how they end, and that they fork. Nothing that was accepted is lost."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from banyan import Client, Executor
from tests.e2e.stack import Stack
from tests.harness import eventually
from tests.harness.forks import in_fork
from tests.harness.processes import ROOT

NOBODY = "a-queue-that-nobody-serves"
COUNT = 300
BEGIN = f"""
import atexit, multiprocessing, os, sys, threading
from banyan import Client, Executor
def many(executor):
    for _ in range({COUNT}):
        executor.submit("true")
executor = Executor(queue="{NOBODY}", tags={{"how": sys.argv[1]}})
"""
# How the program goes on -> its exit code, and how many tasks it has submitted.
ENDS: dict[str, tuple[int, int]] = {
    "many(executor)": (0, COUNT),
    "many(executor); executor.shutdown(wait=False)": (0, COUNT),
    "many(executor); sys.exit(3)": (3, COUNT),
    "many(executor); raise ValueError": (1, COUNT),
    "many(executor); raise KeyboardInterrupt": (-signal.SIGINT, COUNT),
    "many(executor); executor.submit('true', nonsense=1).exception()": (0, COUNT),
    "many(executor)\nif os.fork() == 0:\n    many(executor)\nelse:\n    os.wait()": (0, 2 * COUNT),
    "def in_child():\n    many(Executor(queue='" + NOBODY + "', tags={'how': sys.argv[1]}))\n"
    "child = multiprocessing.get_context('fork').Process(target=in_child)\n"
    "child.start(); child.join(); sys.exit(child.exitcode)": (0, COUNT),
}  # fmt: skip
if sys.version_info[:2] != (3, 12):  # which starts no thread when the main thread has ended
    LATE = "main = threading.main_thread()\n"
    LATE += "threading.Thread(target=lambda: (main.join(), many(executor))).start()"
    ENDS[LATE] = (0, COUNT)


@pytest.fixture(autouse=True)
def own_profile(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_CONFIG", stack.environment["BANYAN_CONFIG"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(program: str, how: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BEGIN + program, how]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def stored(how: str) -> int:
    with Client() as client:
        return sum(client.statistics({"tags.how": how})["by_state"].values())


@pytest.mark.parametrize("program", ENDS)
def test_what_was_submitted_is_stored_when_the_program_ends(program: str) -> None:
    how = str(list(ENDS).index(program))
    code, count = ENDS[program]
    done = run(program, how)
    assert stored(how) == count, done.stderr
    assert done.returncode == code, done.stderr
    assert "not stored" not in done.stderr


def test_what_cannot_be_sent_is_told_to_who_submits_it_and_takes_nothing_with_it() -> None:
    program = """
from datetime import date
many(executor)
for wrong in {"env": {"N": date.today()}}, {"priority": float("nan")}, {"name": "\\udce9"}:
    try:
        executor.submit(["true"], **wrong)
    except Exception as error:
        print(error.word)
many(executor)
"""
    done = run(program, "unsendable")
    assert (done.returncode, done.stdout) == (0, "invalid\n" * 3), done.stderr
    assert stored("unsendable") == 2 * COUNT


def test_what_is_refused_and_never_asked_for_is_told_at_the_end() -> None:
    done = run("many(executor); executor.submit('true', nonsense=1)", "refused")
    assert done.returncode == 120
    assert done.stderr.startswith("banyan: a submitted task was not stored: nothing was stored:")
    assert "nonsense" in done.stderr
    assert stored("refused") == COUNT


AWAY = """
executor = Executor(Client("http://127.0.0.1:9", "x", retry_seconds=0.3))
atexit.register(lambda: print("all else at the end is done"))
"""
IN_CHILD = """
child = multiprocessing.get_context("fork").Process(target=many, args=[executor])
child.start(); child.join()
os._exit(child.exitcode)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("many(executor)", 120), ("many(executor); sys.exit(3)", 120), (IN_CHILD, 1)],
)
def test_what_cannot_be_stored_is_told_at_the_end(end: str, code: int) -> None:
    done = run(AWAY + end, "away")
    assert done.returncode == code
    assert done.stderr.startswith(f"banyan: {COUNT} submitted tasks were not stored: no server")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ("all else at the end is done\n" if code == 120 else "")


@pytest.mark.parametrize("output", ["sys.stdout.close()", "sys.stdout = None", "os.close(1)"])
def test_it_ends_badly_also_without_standard_output(output: str) -> None:
    done = run(f"{output}; executor.submit('true', nonsense=1)", "without")
    assert (done.returncode, len(done.stderr.splitlines())) == (120, 1), done.stderr


def test_a_daemon_thread_that_submits_for_ever_does_not_keep_the_program() -> None:
    program = """
accepted, begun = [0], threading.Event()
def for_ever():
    while True:
        executor.submit("true")
        accepted[0] += 1
        begun.set()
        threading.Event().wait(0.001)
threading.Thread(target=for_ever, daemon=True).start()
begun.wait()
atexit.register(lambda: print(accepted[0]))
"""
    done = run(program, "daemon")
    assert done.returncode == 0
    assert stored("daemon") == int(done.stdout) > 0


# --- Forks --------------------------------------------------------------------------------


def ask(client: Client, name: str) -> list[str]:
    """Answers that were another's."""
    wrong = []
    for turn in range(10):
        task = client.submit({"name": f"{name}-{turn}", "command": "true"}, hold=True)
        if client.get(task["_id"])["name"] != f"{name}-{turn}":
            wrong.append(f"{name}-{turn}")
    return wrong


def test_each_fork_of_a_client_gets_its_own_answers() -> None:
    with Client() as client, futures.ThreadPoolExecutor(4) as pool:
        client.account()
        told = [pool.submit(in_fork, lambda n=n: ask(client, f"f{n}")) for n in range(4)]  # type: ignore[misc]
        mine = ask(client, "parent")
        assert [each.result(60) for each in told] == [[]] * 4
        assert mine == []


def test_threads_may_share_a_client() -> None:
    with Client() as client, futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: ask(client, f"t{n}"), range(4))) == [[]] * 4


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_client_may_be_given_to_a_process_that_is_started(method: str) -> None:
    program = f"""
client = Client()
client.account()
context = multiprocessing.get_context({method!r})
child = context.Process(target=Client.account, args=[client])
child.start(); child.join(); sys.exit(child.exitcode)
"""
    done = run(program, method)
    assert done.returncode == 0, done.stderr


def test_an_executor_begins_anew_in_a_fork() -> None:
    called: list[int] = []
    with Executor() as executor:
        waiting = executor.submit("true", queue=NOBODY)
        ended = executor.submit("echo parent")
        assert ended.result(60) == "parent\n"
        waiting.add_done_callback(lambda _: called.append(os.getpid()))

        def in_child() -> Any:
            told = [type(waiting.exception(10)).__name__, str(waiting.exception()), ended.result()]
            own = executor.submit("echo child").result(60)
            counted = executor.progress().counts()
            executor.shutdown()
            return [*told, own, sum(counted.values()), called]

        name, told, inherited, own, count, callbacks = in_fork(in_child)
        assert (name, inherited, own) == ("RuntimeError", "parent\n", "child\n")
        assert "fork" in told
        assert (count, callbacks) == (1, [])
        assert not waiting.done()
        assert waiting.cancel()
    assert called == [os.getpid()]


def test_a_fork_while_an_executor_is_at_work_hangs_nowhere() -> None:
    stopping = threading.Event()
    with Executor(queue=NOBODY) as executor:

        def submit() -> None:
            while not stopping.wait(0.002):
                executor.submit("true")

        submitting = threading.Thread(target=submit)
        submitting.start()
        for _ in range(10):
            assert in_fork(lambda: executor.submit("true").cancel()) is True
        stopping.set()
        submitting.join()
        executor.shutdown(wait=False, cancel_futures=True)


def test_what_cannot_go_to_another_process_says_so() -> None:
    with Client() as client, Executor(client) as executor:
        future = executor.submit("true")
        for what, advice in ((client, "token"), (executor, "make one"), (future, "asking")):
            with pytest.raises(TypeError, match=advice):
                pickle.dumps(what)
            with pytest.raises(TypeError, match=advice):
                executor.submit(len, [what])


def test_certificates_of_the_environment_outlive_a_fork(tmp_path: Path) -> None:
    program = """
import os, sys
from banyan.client import trust
name = trust.readable("-----BEGIN CERTIFICATE-----")
if os.fork() == 0:
    sys.exit()
os.wait()
assert os.path.exists(name)
print(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_whether_a_task_runs_is_asked_when_somebody_asks(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Executor() as executor:
        waiting = executor.submit("true", queue=NOBODY)
        future = executor.submit(f"until test -e {go}; do sleep 0.1; done")
        eventually(future.running, 30)
        assert not waiting.running()
        go.touch()
        future.result(60)
        assert not future.running()
        waiting.cancel()
