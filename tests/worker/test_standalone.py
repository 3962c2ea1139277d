"""`banyan worker --standalone FILE`: a file of tasks with no server, real processes."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Processes, Started, eventually
from tests.harness.processes import MARK, ROOT
from tests.worker.crew import freeze
from tests.worker.launched import alive, carrying

Task = dict[str, Any]

IMPATIENT = """
from banyan.cli.main import main
from banyan.worker.standalone import run

run._TRUST_SECONDS, run._SILENCE_SECONDS_MAX = 0.5, 4.0
main(["worker", *__import__("sys").argv[1:]])
"""


class Alone:
    """Runs of one file in one directory."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        self.processes = processes
        self.file = directory / "tasks.jsonl"
        self.directory = directory / "tasks.jsonl.d"

    def write(self, *tasks: Task) -> None:
        env = {MARK: self.processes.mark}
        lines = [json.dumps({**task, "env": {**env, **task.get("env", {})}}) for task in tasks]
        self.file.write_text("\n".join(lines) + "\n")

    def begin(self, *more: str) -> Started:
        options = ("--cores", "2", "--memory", "2 GiB", "--shutdown", "1s", *more)
        return self.processes.banyan("worker", "--standalone", str(self.file), *options)

    def run(self, code: int = 0) -> list[str]:
        """A run to its end; the lines that it printed."""
        started = self.begin()
        assert started.wait(60) == code, started.stderr
        return started.stdout.splitlines()

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    def says(self, name: str, text: str) -> None:
        """Waits until a file of output holds this."""
        path = self.directory / name
        eventually(lambda: path.exists() and text in path.read_text())


@pytest.fixture
def alone(processes: Processes, tmp_path: Path) -> Alone:
    return Alone(processes, tmp_path)


def test_tasks_run_in_the_order_of_their_edges(alone: Alone, tmp_path: Path):
    order = tmp_path / "order"
    alone.write(
        {"name": "last", "command": f"echo last >> {order}", "after": ["group"]},
        {"name": "group", "after": ["first", "handler"]},
        {"name": "first", "command": f"echo first >> {order}; echo out; echo err >&2"},
        {"name": "bad", "command": ["sh", "-c", "exit 3"], "after": "first"},
        {"name": "never", "command": f"echo never >> {order}", "after": "bad"},
        {"name": "handler", "command": f"echo handler >> {order}", "after_failure": "bad"},
        {"name": "always", "command": "true", "after_any": ["bad", "never"]},
    )
    lines = alone.run(code=1)
    assert order.read_text().split() == ["first", "handler", "last"]
    assert {"bad: failure (3)", "never: cancelled: bad ended: failure", "always: success"} <= {
        *lines
    }
    assert lines[-1] == "7 of 7 ended: 1 cancelled, 1 failure, 5 success"
    assert (alone.text("first.out"), alone.text("first.err")) == ("out\n", "err\n")


def test_what_has_succeeded_is_skipped_and_what_has_changed_is_not(alone: Alone, tmp_path: Path):
    file = tmp_path / "runs"
    tasks: list[Task] = [
        {"name": "good", "command": f"echo good >> {file}"},
        {"name": "bad", "command": f"echo bad >> {file}; test -e {tmp_path}/repaired"},
        {"name": "child", "command": f"echo child >> {file}", "after": ["good", "bad"]},
    ]
    alone.write(*tasks)
    alone.run(code=1)
    (tmp_path / "repaired").touch()
    assert alone.run()[0] == "1 have succeeded before"
    assert alone.run()[0] == "3 have succeeded before"
    ran = file.read_text().split()
    assert (sorted(ran[:2]), ran[2:]) == (["bad", "good"], ["bad", "child"])
    tasks[0]["command"] = f"echo better >> {file}"
    alone.write(*tasks)
    alone.run()
    assert file.read_text().split()[4:] == ["better"]


def test_no_more_runs_at_once_than_fits(alone: Alone, tmp_path: Path):
    now, most = tmp_path / "now", tmp_path / "most"
    now.mkdir()
    command = f"touch {now}/$$; ls {now} | wc -l >> {most}; sleep 0.05; rm {now}/$$"
    alone.write(*({"command": command} for _ in range(20)))
    alone.run()
    assert {int(count) for count in most.read_text().split()} <= {1, 2}
    assert len(most.read_text().split()) == 20


def test_how_far_a_task_is_stands_among_the_lines_and_in_the_journal(alone: Alone, tmp_path: Path):
    go = tmp_path / "go"
    os.mkfifo(go)
    alone.write(
        {"name": "train", "command": f"echo ::progress 40/100 epoch 4; read x <{go}; exit 1"},
        {"name": "odd", "command": "printf 'x\\n::progress 3 \\033[31m'; echo ::progress no"},
    )
    started = alone.begin()
    eventually(lambda: "train: 40/100 epoch 4\n" in started.stdout)
    go.write_text("on\n")
    assert started.wait(60) == 1
    lines = started.stdout.splitlines()
    assert "train: failure (1) (40/100 epoch 4)" in lines
    assert "odd: success (3 \\x1b[31m::progress no)" in lines, "no control character gets out"
    journal = [json.loads(line) for line in alone.text("journal.jsonl").split("\n") if line]
    assert {"done": 40, "total": 100, "message": "epoch 4"} in [
        entry.get("progress") for entry in journal
    ]
    assert alone.text("train.out") == "::progress 40/100 epoch 4\n"


def test_progress_and_result_need_no_server(alone: Alone):
    banyan = f"{sys.executable} -m banyan"
    told = f"{banyan} progress 3 --of 9 'two\nlines'; {banyan} result '{{\"loss\": 0.1}}'"
    env = {"PYTHONPATH": str(ROOT)}
    wrong = f"{banyan} result '{{'"
    alone.write({"name": "a/b", "command": told, "env": env}, {"command": wrong, "env": env})
    assert "a/b: success (3/9 two lines)" in alone.run(code=1)
    assert json.loads(alone.text("a%2Fb.result")) == {"loss": 0.1}
    assert "this is no JSON" in alone.text("2.err")


def test_retries_timeouts_and_what_cannot_be_started(alone: Alone, tmp_path: Path):
    once = tmp_path / "once"
    alone.write(
        {"name": "second", "command": f"test -e {once} || {{ touch {once}; echo no; exit 1; }}",
         "retries": 1, "retry_delay": "0.2s"},
        {"name": "slow", "command": "sleep 1000", "timeout": "300ms"},
        {"name": "nowhere", "command": "true", "cwd": "/does/not/exist"},
    )  # fmt: skip
    lines = alone.run(code=1)
    assert {"second: success", "slow: timeout"} <= set(lines)
    assert "nowhere: failure: cwd '/does/not/exist': No such file or directory" in lines


@pytest.mark.parametrize(("where", "code"), [(">/dev/full", 74), (">&-", 74), ("| true", 0)])
def test_what_nobody_can_be_shown_stops_no_task(
    alone: Alone, tmp_path: Path, where: str, code: int
):
    file = tmp_path / "runs"
    alone.write(*({"name": str(n), "command": f"echo {n} >> {file}"} for n in range(3)))
    program = f"{sys.executable} -m banyan worker --standalone {alone.file} --cores 1"
    started = alone.processes.start(["bash", "-c", f"{program} {where}; exit $PIPESTATUS"])
    assert started.wait(60) == code, started.stderr
    assert sorted(file.read_text().split()) == ["0", "1", "2"]
    assert "Traceback" not in started.stderr


def test_an_interrupted_run_leaves_nothing_and_is_gone_on_with(alone: Alone, tmp_path: Path):
    file, go = tmp_path / "runs", tmp_path / "go"
    wait = f"echo begun; until test -e {go}; do sleep 0.05; done"
    alone.write(
        {"name": "a", "command": f"echo a >> {file}"},
        {"name": "b", "command": f"echo b >> {file}; {wait}", "after": "a"},
        {"name": "c", "command": f"echo c >> {file}", "after": "b"},
    )
    started = alone.begin()
    alone.says("b.out", "begun")
    started.signal(signal.SIGINT)
    assert started.wait(20) == 130
    assert carrying("BANYAN_TASK_ID", "b") == []
    go.touch()
    assert alone.run()[-1] == "3 of 3 ended: 3 success"
    assert file.read_text().split() == ["a", "b", "b", "c"]
    left = [path.name for path in (alone.directory / ".banyan").rglob("*") if path.is_file()]
    assert left == ["lock"]


def test_a_run_that_was_killed_is_taken_over_by_the_next(alone: Alone, tmp_path: Path):
    file, go = tmp_path / "runs", tmp_path / "go"
    os.mkfifo(go)
    alone.write(
        {"name": "a", "command": f"echo a >> {file}; echo begun; cat {go}; echo done"},
        {"name": "b", "command": f"echo b >> {file}", "after": "a"},
    )
    first = alone.begin()
    alone.says("a.out", "begun")
    first.kill()
    second = alone.begin()
    eventually(lambda: (alone.directory / ".banyan" / "launcher.pid").exists())
    go.write_text("go\n")
    assert second.wait(30) == 0
    assert file.read_text().split() == ["a", "b"]
    assert alone.text("a.out") == "begun\ngo\ndone\n"


def test_one_that_is_taken_over_keeps_the_result_that_it_has_told(alone: Alone, tmp_path: Path):
    go = tmp_path / "go"
    os.mkfifo(go)
    alone.write({"name": "a", "command": f'echo 1 > "$BANYAN_RESULT_FILE"; read x < {go}'})
    first = alone.begin()
    alone.says("a.result", "1")
    first.kill()
    second = alone.begin()
    go.write_text("go\n")
    assert second.wait(30) == 0
    assert alone.text("a.result") == "1\n"


def test_a_task_of_a_launcher_that_dies_runs_again(alone: Alone, tmp_path: Path):
    file = tmp_path / "runs"
    command = f"echo x >> {file}; echo begun; test $(wc -l < {file}) = 2 || exec sleep 1000"
    alone.write({"name": "a", "command": command})
    started = alone.begin()
    alone.says("a.out", "begun")
    old = carrying("BANYAN_TASK_ID", "a")
    launcher = int((alone.directory / ".banyan" / "launcher.pid").read_text().split()[0])
    os.kill(launcher, signal.SIGKILL)
    assert started.wait(30) == 0
    assert file.read_text().split() == ["x", "x"]
    assert not any(alive(pid) for pid in old)


def test_a_task_of_a_launcher_that_does_not_answer_runs_again(alone: Alone, tmp_path: Path):
    """And the run looks after the launcher that is started for that one."""
    file, go = tmp_path / "runs", tmp_path / "go"
    os.mkfifo(go)
    alone.write(
        {"name": "a", "command": f"echo x >> {file}; echo begun; exec cat {go}"},
        {"name": "b", "command": "true", "after": "a"},
    )
    alone.file.with_name("impatient.py").write_text(IMPATIENT)
    program = [sys.executable, str(alone.file.with_name("impatient.py"))]
    options = ["--cores", "2", "--memory", "2 GiB", "--standalone", str(alone.file)]
    started = alone.processes.start([*program, *options])
    kept = alone.directory / ".banyan" / "launcher.pid"
    launchers: list[int] = []
    for runs in (1, 2, 3):
        expected = "x\n" * runs
        eventually(lambda said=expected: file.exists() and file.read_text() == said, 30)
        launchers.append(int(kept.read_text().split()[0]))
        if runs < 3:
            freeze(launchers[-1])
    go.write_text("go\n")
    assert started.wait(30) == 0, started.stderr
    assert started.stderr.count("the launcher does not answer") == 2
    assert "Traceback" not in started.stderr
    assert not any(alive(pid) for pid in launchers)


def test_two_runs_of_one_directory_do_not_go_together(alone: Alone):
    alone.write({"name": "a", "command": "echo begun; sleep 1000"})
    first = alone.begin()
    alone.says("a.out", "begun")
    second = alone.begin()
    assert second.wait(20) == 4
    assert "another worker is at work" in second.stderr
    first.signal(signal.SIGTERM)
    assert first.wait(20) == 130


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["no"], ":1: "),
        (["[]"], ":1: a JSON object"),
        (['{"command": "true", "colour": 1}'], "'colour' is no field"),
        (['{"name": "a"}', '{"name": "a"}'], ":2: the name 'a' is used twice"),
        (['{"name": "a", "after": ["b"]}'], "comes after 'b', which is not there"),
        (['{"name": "a", "after": "b"}', '{"name": "b", "after": "a"}'], "each other: a, b"),
        (['{"command": "true", "requested_resources": {"cores": -1}}'], ":1: "),
        (['{"name": "a", "requested_resources": {"cores": 3}}'], "more than there is here: a"),
        (['{"command": []}'], "command is"),
        (['{"command": "true", "env": {"a b": "x"}}'], "env: 'a b'"),
        (['{"command": "true", "retries": -1}'], ":1: "),
    ],
)
def test_a_file_that_is_wrong_says_where_and_starts_nothing(
    alone: Alone, lines: list[str], told: str
):
    alone.file.write_text("\n".join(lines))
    started = alone.begin()
    assert started.wait(20) == 2
    assert told in started.stderr
    assert not (alone.directory / "journal.jsonl").exists()
