"""What a running task says of itself: by the command line, by the client, by a line of output."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import eventually
from tests.harness.processes import ROOT
from tests.worker.crew import Crew

BANYAN = f"{sys.executable} -m banyan"
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def crew(crew: Crew) -> Crew:
    """With one worker of two cores at work."""
    crew.worker("one", "--cores", "2", "--memory", "2 GiB", "--shutdown", "1s")
    crew.registered()
    return crew


def running(crew: Crew, tmp_path: Path, script: str) -> tuple[str, Path]:
    """A task that does this, says "ready", and ends when the file that is returned exists."""
    go = tmp_path / "go"
    if not go.exists():
        os.mkfifo(go)
    task = crew.submit(f"{script}\necho ready; cat {go}", env=ENVIRONMENT)
    crew.says(task, b"ready")
    return task, go


def cli(crew: Crew, *arguments: str) -> str:
    """What a provider's `banyan ARGUMENTS...` prints."""
    own = {"BANYAN_URL": crew.server.url, "BANYAN_TOKEN": crew.server.tokens["provider"]}
    command = [sys.executable, "-m", "banyan", *arguments]
    environment = {**os.environ, **ENVIRONMENT, **own}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_progress_and_result_are_seen_at_once(crew: Crew, tmp_path: Path):
    script = f"{BANYAN} progress 40 --of 100 'epoch 4'; {BANYAN} result '{{\"loss\": 0.1}}'"
    task, go = running(crew, tmp_path, script)
    document = crew.task(task)
    assert document["progress"] == {"done": 40, "total": 100, "message": "epoch 4"}
    assert document["result"] == {"loss": 0.1}
    facts = dict(line.split(maxsplit=1) for line in cli(crew, "show", task).splitlines() if line)
    assert (facts["progress"], facts["result"]) == ("40/100 epoch 4", '{"loss": 0.1}')
    title, row = cli(crew, "ls", task).splitlines()
    assert row[title.index("PROGRESS") :].startswith('40/100 epoch 4  {"loss": 0.1}')
    go.write_text("")
    assert crew.ended(task)["result"] == {"loss": 0.1}


def test_a_list_of_tasks_that_say_nothing_has_no_columns_for_it(crew: Crew):
    task = crew.submit("true")
    crew.ended(task)
    assert not {"PROGRESS", "RESULT"} & set(cli(crew, "ls", task).split())


def test_a_task_says_it_with_its_own_token_beside_another(crew: Crew):
    other = crew.server.tokens["provider"]
    script = f"BANYAN_TOKEN={other} {BANYAN} progress 0.5; echo 7 | {BANYAN} result -"
    ended = crew.ended(crew.submit(f"set -e; {script}", env=ENVIRONMENT))
    assert (ended["outcome"], ended["progress"], ended["result"]) == ("success", {"done": 0.5}, 7)


@pytest.mark.parametrize(
    "words",
    ["progress 40 --of many", "progress --of=3", "result {", "result null"],
)
def test_what_cannot_be_told_is_wrong_usage(crew: Crew, words: str):
    task = crew.submit(f"{BANYAN} {words}", env=ENVIRONMENT)
    assert crew.ended(task)["reason"] == "failure (2)"
    assert crew.task(task).get("progress") is None


def test_a_task_submits_further_tasks_without_any_settings(crew: Crew):
    code = (
        'from banyan.client.api import Client; print(Client().submit({"command": "true"})["_id"])'
    )
    script = f"{BANYAN} submit -q -- true; {shlex.join([sys.executable, '-c', code])}"
    task = crew.submit(script, env={**ENVIRONMENT, "BANYAN_CONFIG": "/does/not/exist"})
    assert crew.ended(task)["outcome"] == "success", crew.log(task)
    further = crew.log(task).decode().split()
    assert [crew.ended(each)["owner"] for each in further] == ["provider", "provider"]


def test_a_line_of_output_is_progress_and_stays_in_the_log(crew: Crew, tmp_path: Path):
    task, go = running(crew, tmp_path, "echo ::progress 40/100 epoch 4")
    eventually(lambda: crew.task(task).get("progress"))
    assert crew.task(task)["progress"] == {"done": 40, "total": 100, "message": "epoch 4"}
    assert crew.log(task).startswith(b"::progress 40/100 epoch 4\n")
    go.write_text("")
    crew.ended(task)


def test_the_last_of_many_lines_is_what_stays(crew: Crew):
    script = "for n in range(20_000): print(f'::progress {n}/20000\\nother', flush=n % 100 == 0)"
    task = crew.submit(["python3", "-c", script])
    assert crew.ended(task)["progress"] == {"done": 19999, "total": 20000}
    assert crew.log(task).count(b"::progress") == 20_000


def test_progress_that_is_held_back_comes_without_further_output(crew: Crew, tmp_path: Path):
    task, go = running(crew, tmp_path, "echo ::progress 1")
    eventually(lambda: crew.task(task).get("progress"))
    go.write_text("::progress 2\n::progress 3\n")
    assert crew.ended(task)["progress"] == {"done": 3}
    second = crew.submit(f"echo ::progress 1; echo ready; cat {go}; exec sleep 1000")
    crew.says(second, b"ready")
    go.write_text("::progress 2\n")
    eventually(lambda: crew.task(second)["progress"] == {"done": 2})
    crew.server.provider.post(f"tasks/{second}/cancel")
    crew.ended(second)


def test_what_only_looks_like_progress_harms_nothing(crew: Crew):
    lines: list[Any] = ["::progress", "::progress x", "::progress -1", f"::progress {'9' * 400}"]
    said = "\n".join([*lines, " ::progress 5", f"::progress 6 {'é' * 5000}"])
    task = crew.submit(["printf", "%s", said + "\n"])
    ended = crew.ended(task)
    assert (ended["outcome"], ended["progress"]["done"]) == ("success", 6)
    assert len(ended["progress"]["message"]) == 256
    assert json.loads(json.dumps(said)) + "\n" == crew.log(task).decode()
