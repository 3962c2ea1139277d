"""What a callable answers, whatever it does to its output, and however it ends."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from banyan import Client, Executor, TaskFailed
from banyan.client.futures import TaskFuture
from tests.e2e.stack import Stack
from tests.harness.processes import ROOT


@pytest.fixture(autouse=True)
def own_profile(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_CONFIG", stack.environment["BANYAN_CONFIG"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def executor(stack: Stack) -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("BANYAN_CONFIG", stack.environment["BANYAN_CONFIG"])
        executor = Executor(memory="512 MiB")
    yield executor
    executor.shutdown(cancel_futures=True)


# --- Output -------------------------------------------------------------------------------


def replaces_output() -> int:
    import io

    sys.stdout = sys.stderr = io.StringIO()
    return 1


def closes_output() -> int:
    sys.stdout.close()
    sys.stderr.close()
    return 1


def closes_files_of_output() -> int:
    sys.stdout.write("lost")
    os.close(1)
    os.close(2)
    return 1


def says_much() -> int:
    for _ in range(20):
        sys.stdout.write("x" * 2**20)
    return 1


def leaves_a_child_that_says_much() -> int:
    subprocess.Popen(["sh", "-c", "while :; do echo noise; done"])
    return 1


def forks_and_comes_back_twice() -> int:
    if os.fork():
        os.wait()
        return 1
    return 2


def tells_a_result() -> int:
    subprocess.run([sys.executable, "-P", "-m", "banyan", "result", '{"loss": 1}'], check=True)
    return 1


def ends_badly_later() -> int:
    import atexit

    atexit.register(os._exit, 9)
    return 1


CALLS = [
    replaces_output, closes_output, closes_files_of_output, says_much,
    leaves_a_child_that_says_much, forks_and_comes_back_twice, tells_a_result, ends_badly_later,
]  # fmt: skip


def test_whatever_it_does_to_its_output_it_returns_what_it_returns(executor: Executor) -> None:
    waiting = {call: executor.submit(call) for call in CALLS}
    assert {call: future.result(90) for call, future in waiting.items()} == dict.fromkeys(CALLS, 1)


def test_its_log_is_what_it_has_written(executor: Executor, stack: Stack) -> None:
    def write() -> bytes:
        sys.stdout.write("out\n")
        sys.stdout.flush()
        sys.stderr.write("err\n")
        return os.urandom(3_000_000)

    future = executor.submit(write)
    assert len(future.result(60)) == 3_000_000
    with Client() as client:
        assert sorted(client.log(future.task_id).split()) == [b"err", b"out"]
        assert client.log(future.task_id, stream="stdout") == b"out\n"
        assert b"".join(client.follow(future.task_id, attempt=1, stream="stderr")) == b"err\n"
    assert sorted(stack.text("log", future.task_id).split()) == ["err", "out"]


def test_what_is_too_large_says_what_to_do(executor: Executor) -> None:
    with pytest.raises(ValueError, match="write it to a file"):
        executor.submit(os.urandom, 9 * 2**20).result(60)


def test_several_calls_may_make_one_task(executor: Executor) -> None:
    told = executor.asking(cores=0.1).map(
        lambda one, other: (one + other, os.getpid()), range(7), range(10), chunksize=3, timeout=60
    )
    sums, processes = zip(*told, strict=True)
    assert list(sums) == [0, 2, 4, 6, 8, 10, 12]
    assert [processes.count(each) for each in dict.fromkeys(processes)] == [3, 3, 1]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=0)


# --- Ends ---------------------------------------------------------------------------------


class Picky(Exception):
    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Frozen(Exception):
    pass


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError

    def __reduce__(self) -> Any:
        raise TypeError


def raises(make: Callable[[], BaseException]) -> None:
    raise make()


def in_two_ways(future: TaskFuture) -> BaseException:
    """What it raises, by `exception` and by `result`."""
    told = future.exception(60)
    assert told is not None
    with pytest.raises(type(told)) as caught:
        future.result(0)
    assert caught.value is told
    return told


def test_what_it_raises_is_told_as_a_pool_of_processes_does(executor: Executor) -> None:
    makers: list[Callable[[], BaseException]] = [
        lambda: SystemExit(0), lambda: SystemExit(3), lambda: SystemExit("no licence"),
        lambda: KeyboardInterrupt(), lambda: GeneratorExit(), lambda: Picky("no data", code=7),
        lambda: Wordless(lambda: None), lambda: Frozen(),
    ]  # fmt: skip
    waiting = [executor.submit(raises, maker) for maker in makers]
    told = [in_two_ways(future) for future in waiting]
    assert [type(each).__name__ for each in told] == [
        "SystemExit", "SystemExit", "SystemExit", "KeyboardInterrupt", "GeneratorExit",
        "RuntimeError", "RuntimeError", "Frozen",
    ]  # fmt: skip
    assert [getattr(each, "code", None) for each in told[:3]] == [0, 3, "no licence"]
    assert [str(each) for each in told[5:7]] == ["Picky: no data", "Wordless"]
    causes = [each.__cause__ for each in told]
    assert all(isinstance(each, TaskFailed) for each in causes)
    codes = [getattr(each, "exit_status", None) for each in causes]
    assert codes == ["success", "failure (3)", *["failure (1)"] * 6]
    assert "no licence" in str(causes[2])


def test_one_that_ends_before_it_answers_says_so(executor: Executor) -> None:
    told = in_two_ways(executor.submit(os._exit, 0))
    assert "before it gave an answer" in str(told)


def test_an_answer_of_what_is_not_here_says_so(executor: Executor) -> None:
    def make() -> Any:
        from types import ModuleType

        module = ModuleType("only_there")
        sys.modules["only_there"] = module
        exec("class Own: pass", module.__dict__)  # noqa: S102
        return module.Own()

    told = in_two_ways(executor.submit(make))
    assert isinstance(told, TaskFailed)
    assert "can't be read here: ModuleNotFoundError" in str(told)


def test_an_event_loop_never_waits_for_ever_nor_for_the_server(executor: Executor) -> None:
    async def ask() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls: list[tuple[Any, ...]] = [
            (abs, -3), (["echo", "hi"],), ("exit 3",), (sys.exit, 0), (raises, StopIteration),
        ]  # fmt: skip
        waiting = [loop.run_in_executor(executor, *each) for each in calls]
        return await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 90)

    told = asyncio.run(ask())
    assert told[:2] == [3, "hi\n"]
    assert [type(each).__name__ for each in told[2:]] == [
        "TaskFailed",
        "SystemExit",
        "RuntimeError",
    ]


# --- Modules ------------------------------------------------------------------------------


def test_a_module_whose_name_another_one_has_is_found_where_its_program_has_found_it(
    tmp_path: Path,
) -> None:
    """Of the library, and of what is installed."""
    program = "from banyan import Executor\nimport iniconfig, sndhdr\n"
    program += "with Executor(memory='200 MiB') as executor:\n"
    program += "    print([executor.submit(each.own).result(60) for each in (iniconfig, sndhdr)])\n"
    (tmp_path / "program.py").write_text(program)
    for name in ("iniconfig", "sndhdr"):
        text = f"def own():\n    import colorsys\n    return {name!r}\n"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "colorsys.py").write_text("raise ImportError('the program has not taken this')\n")
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.stdout == "['iniconfig', 'sndhdr']\n", done.stderr
