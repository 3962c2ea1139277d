"""The command line on many tasks at once: arrays, selections, retry, progress, overviews."""

import json
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, read_all
from tests.harness import eventually

TOKEN = 'echo "Authorization: Bearer $BANYAN_TOKEN"'
SHOW_INDEX = ("--", "sh", "-c", "echo $BANYAN_ARRAY_INDEX")


def outputs(stack: Stack, ids: list[str]) -> list[str]:
    stack.call("wait", *ids)
    return [stack.text("log", id) for id in ids]


# --- arrays and sweeps -------------------------------------------------------------------


def test_an_array_is_a_task_for_each_number(stack: Stack) -> None:
    ids = stack.text("submit", "-q", "--array", "2-6:2,9", *SHOW_INDEX).splitlines()
    assert outputs(stack, ids) == ["2", "4", "6", "9"]
    assert stack.text("ls", "-q", "last", "-a").splitlines() == list(reversed(ids))
    words = stack.text("submit", "-q", "--array", "7", "--", "echo", "n={index}", "{{other}}")
    assert outputs(stack, [words]) == ["n=7 {other}"]


def test_each_line_of_a_file_is_put_in_as_one_word(stack: Stack, tmp_path: Path) -> None:
    lines = tmp_path / "params.txt"
    lines.write_text("a b\n\n'; exit 9 #\n$HOME\n")
    plain = ("submit", "-q", "--each-line", str(lines), "--", "printf", "%s|", "{line}", "x{line}")
    assert outputs(stack, stack.text(*plain).splitlines()) == [
        "a b|xa b|", "'; exit 9 #|x'; exit 9 #|", "$HOME|x$HOME|",
    ]  # fmt: skip
    shell = ("submit", "-q", "--each-line", "-", "--shell", 'printf %s {line} "$BANYAN_LINE"')
    ids = stack.text(*shell, input=lines.read_bytes()).splitlines()
    assert outputs(stack, ids) == ["a ba b", "'; exit 9 #'; exit 9 #", "$HOME$HOME"]


def test_items_of_json_are_put_in_by_name(stack: Stack, tmp_path: Path) -> None:
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([{"lr": 0.1, "model": "big one"}, {"lr": 2, "model": "b"}]))
    command = ("--", "echo", "{model}", "{lr}", "{{none}}")
    ids = stack.text("submit", "-q", "--from-json", str(listed), *command).splitlines()
    assert outputs(stack, ids) == ["big one 0.1 {none}", "b 2 {none}"]
    typo = ("submit", "--from-json", str(listed), "--", "echo", "{modle}")
    told = stack.call(*typo, code=2).stderr.decode()
    assert "nothing fills {modle} in COMMAND: there is {index}, {item}, {lr}, {model}" in told
    by_line = ("submit", "-q", "--from-json", "-", "--", "sh", "-c", "echo $BANYAN_ITEM")
    ids = stack.text(*by_line, input=b'"a"\n{"b":1}\n').splitlines()
    assert outputs(stack, ids) == ["a", '{"b": 1}']


def test_more_than_a_thousand_go_in_requests_of_a_thousand(stack: Stack) -> None:
    sweep = ("--hold", "--array", "1-2001", "--tag", "set=long", "--", "true")
    requests = stack.text("submit", "--curl", *sweep)
    bodies = [json.loads(re.findall(r"-d '(.*)' http", line)[0]) for line in requests.splitlines()]
    assert [len(body) if isinstance(body, list) else 1 for body in bodies] == [1000, 1000, 1]
    assert stack.text("ls", "-q", "--tag", "set=long") == ""
    assert len(set(stack.text("submit", "-q", *sweep).splitlines())) == 2001
    counted = stack.json("progress", "--once", "--json", "--tag", "set=long")
    assert counted["held"] == 2001


@pytest.mark.parametrize(
    "wrong",
    [("--array", "5-1"), ("--array", "x"), ("--array", "1-9%x"), ("--array", ""),
     ("--array", "1", "--each-line", "-"), ("--each-line", "-"), ("--from-json", "-")],
    ids=" ".join,
)  # fmt: skip
def test_what_makes_no_array_is_told(stack: Stack, wrong: tuple[str, ...]) -> None:
    nothing = b"" if wrong[0] != "--from-json" else b"[1,"
    told = stack.call("submit", *wrong, "--", "true", code=2, input=nothing).stderr.decode()
    assert told.startswith("banyan: ")
    assert len(told.splitlines()) == 1


def test_a_script_brings_its_options_along(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text(
        "#!/bin/sh\n#BANYAN --cores 2 --tag 'from=the script' --memory '64 MiB'\n"
        "#BANYAN --name fit\necho $1 $BANYAN_CORES\n#BANYAN --cores 3\n"
    )
    task = stack.json("submit", "--json", "--hold", "--tag", "a=b", "train.sh", "x", cwd=tmp_path)
    assert task["requested_resources"]["cpu_cores"]["count"] == 2
    assert task["requested_resources"]["cpu_memory_bytes"] == 64 * 2**20
    assert (task["name"], task["tags"]) == ("fit", {"from": "the script", "a": "b"})
    overruled = ("run", "--cores", "1", "train.sh", "given")
    assert stack.text(*overruled, cwd=tmp_path) == "given 1"
    script.write_text("#BANYAN --nonsense 3\n")
    told = stack.call("submit", str(script), code=2).stderr.decode()
    assert "train.sh" in told
    assert "--nonsense" in told


# --- what goes -----------------------------------------------------------------------------


def test_what_has_ended_is_forgotten_and_asked_about(stack: Stack) -> None:
    tagged = ("submit", "-q", "--tag", "set=gone", "--retain", "2 days")
    ids = stack.text(*tagged, "--array", "1-3", "--", "true").splitlines()
    held = stack.text(*tagged, "--hold", "--", "true")
    assert "retain    2d" in stack.text("show", held).splitlines()
    stack.call("wait", *ids)
    told = stack.call("forget", "--tag", "set=gone", code=2).stderr.decode()
    assert "Forget 3 tasks" in told
    assert "--yes" in told
    assert stack.call("forget", "--yes", "--tag", "set=gone").stderr == b"3 tasks forgotten\n"
    assert stack.text("ls", "-q", "--tag", "set=gone") == held
    assert stack.call("show", ids[0], code=3).stderr.startswith(b"banyan: ")
    assert held in stack.call("forget", held, code=4).stderr.decode()
    shown = stack.text("forget", "--curl", held)
    assert "/tasks/forget" in shown
    stack.call("cancel", held)
    stack.call("forget", held)


# --- selections --------------------------------------------------------------------------


def test_failed_ones_of_a_sweep_are_found_understood_and_retried(
    stack: Stack, tmp_path: Path
) -> None:
    command = 'echo "value $BANYAN_ARRAY_INDEX"; test -e ok || test $BANYAN_ARRAY_INDEX != 2'
    sweep = ("submit", "-q", "--tag", "sweep=7", "--name", "sim", "--array", "1-3")
    ids = stack.text(*sweep, "--", "sh", "-c", command, cwd=tmp_path).splitlines()
    stack.call("wait", "--tag", "sweep=7", code=1)
    assert stack.text("ls", "-q", "--state", "failed", "@sim") == ids[1]
    shown = stack.text("log", "--state", "failed", "--tag", "sweep=7", "--tail", "1")
    assert shown.splitlines() == [f"==> {ids[1]} sim failure [2] <==", "value 2"]
    (tmp_path / "ok").touch()
    stack.call("retry", "--state", "failed", "--tag", "sweep=7")
    stack.call("wait", "@sim")
    assert len(stack.json("show", "--json", ids[1])["attempts"]) == 2
    assert len(stack.json("show", "--json", ids[0])["attempts"]) == 1
    assert b"none of them has failed" in stack.call("retry", "@sim").stderr


def test_a_name_stands_for_all_or_is_refused_where_one_is_meant(stack: Stack) -> None:
    first = stack.text("submit", "-q", "--hold", "--name", "twin", "--", "true")
    assert stack.json("show", "--json", "@twin")["_id"] == first
    stack.text("submit", "-q", "--hold", "--name", "twin", "--", "true")
    assert "several" in stack.call("show", "@twin", code=2).stderr.decode()
    assert "several" in stack.call("explain", "@twin", code=2).stderr.decode()


def test_more_than_one_is_not_cancelled_unasked(stack: Stack) -> None:
    made = stack.text("submit", "-q", "--hold", "--array", "1-3", "--tag", "set=c", "--", "true")
    told = stack.call("cancel", "--tag", "set=c", code=2, input=b"y\n").stderr.decode()
    assert "--yes" in told
    assert len(stack.text("ls", "-q", "--state", "inactive", "--tag", "set=c").splitlines()) == 3
    stack.call("cancel", made.splitlines()[0])
    stack.call("cancel", "--yes", "--tag", "set=c")
    assert len(stack.text("ls", "-q", "--state", "cancelled", "--tag", "set=c").splitlines()) == 3


def test_on_a_terminal_it_asks(stack: Stack) -> None:
    stack.text("submit", "-q", "--hold", "--array", "1-2", "--tag", "set=t", "--", "true")
    for answer, code, left in ((b"n\n", 130, 2), (b"y\n", 0, 0)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        try:
            arguments = ("cancel", "--tag", "set=t")
            stack.call(*arguments, code=code, stdin=theirs, stdout=theirs, stderr=theirs)
        finally:
            os.close(theirs)
        assert "Cancel 2 tasks?" in read_all(ours)
        assert len(stack.text("ls", "-q", "--state", "open", "--tag", "set=t").split()) == left


# --- explain, script, curl ---------------------------------------------------------------


def test_explain_tells_what_would_change_it(stack: Stack) -> None:
    held = stack.text("submit", "-q", "--hold", "--name", "first", "--", "true")
    child = stack.text("submit", "-q", "--after", held, "--", "true")
    large = stack.text("submit", "-q", "--gpus", "2", "--memory", "900 TiB", "--", "true")
    astray = stack.text("submit", "-q", "--queue", "night", "--", "true")
    labelled = stack.text("submit", "-q", "--label", "site=x", "--", "true")
    expected = {
        held: ["held", "release it"],
        child: ["it waits for 1 task that has not ended", f"{held} first (inactive)"],
        large: ["2 gpus wanted, the nearest has", "900 TiB of memory"],
        astray: ["no worker serves the queue 'night'", "banyan worker --queue night"],
        labelled: ["labels", "--label site=x"],
    }
    for id, words in expected.items():
        told = stack.text("explain", id)
        assert all(word in told for word in words), told
    stack.call("cancel", "--yes", held, large, astray, labelled)


def test_explain_tells_who_is_in_the_way_and_the_place_in_the_line(stack: Stack) -> None:
    large = stack.text("submit", "-q", "--cores", "3", "--", "sleep", "600")
    eventually(lambda: stack.json("show", "--json", large)["state"] == "running")
    wide = ("submit", "-q", "--cores", "4", "--", "true")
    first, second = stack.text(*wide), stack.text(*wide)
    told = stack.text("explain", first)
    assert "1 worker could run it and is busy: 4 cores wanted, the nearest has 1 core free" in told
    assert "no task is before it" in told
    assert "1 task is before it" in stack.text("explain", second)
    assert stack.json("explain", "--json", second)["causes"][0]["ahead"] == 1
    stack.call("cancel", large)
    stack.call("wait", first, second)


def test_explain_tells_where_the_time_went(stack: Stack) -> None:
    id = stack.text("submit", "-q", "--retries", "1", "--", "sh", "-c", "sleep 0.2; exit 4")
    stack.call("wait", id, code=1)
    times = stack.json("explain", "--json", id)["times"]
    assert times["running_milliseconds"] >= 400
    assert times["attempts"] == 2
    told = stack.text("explain", id)
    assert "between attempts" in told
    assert "retry it" in told


def test_script_runs_the_task_by_hand(stack: Stack, tmp_path: Path) -> None:
    command = ("--", "sh", "-c", "echo $MINE; pwd")
    stack.text("submit", "-q", "--env", "MINE=a b", *command, cwd=tmp_path)
    script = stack.call("script", "last").stdout
    ran = subprocess.run(["sh"], input=script, capture_output=True, check=True)
    assert ran.stdout.decode().splitlines() == ["a b", str(tmp_path)]


def test_curl_prints_what_would_be_sent_and_it_works(stack: Stack) -> None:
    token = json.loads(stack.credentials.read_text())["provider"]

    def by_hand(line: str) -> str:
        assert token not in line
        environment = {**os.environ, "BANYAN_TOKEN": token}
        done = subprocess.run(
            ["sh", "-c", line], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    submit = ("submit", "--curl", "--hold", "--name", "it's", "--tag", "set=curl", "--", "true")
    line = stack.text(*submit)
    assert stack.text("ls", "-q", "--tag", "set=curl") == ""
    made = json.loads(by_hand(line))
    assert (made["name"], made["state"]) == ("it's", "inactive")
    assert made["_id"] in by_hand(stack.text("ls", "--curl", "--tag", "set=curl"))
    by_hand(stack.text("cancel", "--curl", "last"))
    assert stack.json("show", "--json", made["_id"])["state"] == "cancelled"
    for verb in ("show", "log", "wait", "explain", "script", "progress", "retry", "release"):
        assert stack.text(verb, "--curl", made["_id"]).startswith(f"{TOKEN} | curl -"), verb
    assert stack.text("run", "--curl", "--", "true").startswith(f"{TOKEN} | curl -X POST ")
    revoke = stack.text("account", "revoke", "--curl", "worker")
    assert re.search(r"/accounts/[0-9a-f]{24}/revoke$", revoke)
    for verb in ("top", "stats"):
        assert stack.text(verb, "--curl").startswith(f"{TOKEN} | curl -"), verb


# --- overviews ---------------------------------------------------------------------------


def test_progress_goes_on_until_all_have_ended(stack: Stack, tmp_path: Path) -> None:
    command = "until test -e go; do sleep 0.05; done; test $BANYAN_ARRAY_INDEX != 2"
    sweep = ("submit", "-q", "--array", "1-3", "--tag", "set=p", "--", "sh", "-c", command)
    stack.text(*sweep, cwd=tmp_path)
    begun = stack.begin("progress", "last")
    assert begun.stdout is not None
    assert begun.stdout.readline().startswith(b"0 of 3 ended: ")
    (tmp_path / "go").touch()
    rest, _ = begun.communicate(timeout=30)
    assert rest.decode().splitlines()[-1] == "3 of 3 ended: 2 succeeded, 1 failed"
    assert begun.returncode == 1
    drawn = stack.on_a_terminal("progress", "--tag", "set=p", code=1)
    assert re.search(r"failed +\x1b\[31m█+", drawn)
    assert "\x1b" not in stack.text("progress", "--tag", "set=p", code=1)


def test_top_and_the_workers(stack: Stack) -> None:
    id = stack.text("submit", "-q", "--cores", "2", "--name", "busy", "--", "sleep", "600")
    eventually(lambda: stack.json("show", "--json", id)["state"] == "running")
    top = stack.text("top")
    assert re.search(r"active +2/4 ", top)
    assert re.search(rf"{id} +busy ", top)
    assert "\x1b[" in stack.on_a_terminal("top", "--once")
    (worker,) = stack.text("worker", "list", "-q").splitlines()
    assert worker in stack.text("worker", "list")
    told = stack.json("stats", "--json")
    assert told["workers"]["capacity"]["cores"] == 4
    assert "reserved" in stack.text("stats").lower()
    stack.call("cancel", id)


def test_stats_tell_what_was_over_time(stack: Stack) -> None:
    sweep = ("submit", "-q", "--array", "1-3", "--tag", "set=s", "--", "sh", "-c", "exit ${X:-0}")
    stack.text(*sweep)
    stack.text("wait", "--tag", "set=s")
    asked = ("stats", "--tag", "set=s", "--by", "state,tags.set", "--window", "2h")
    told = stack.json(*asked, "--json", "--buckets", "4")["tasks"]
    assert told["by_tag"] == {"set": {"s": 3}}
    assert told["ended"] == {"success": 3}
    assert told["running_milliseconds"]["count"] == 3
    assert told["waiting_milliseconds"]["count"] == 3
    of_queue = stack.json("stats", "--queue", "default", "--json")["tasks"]
    assert of_queue["ended"]["success"] >= 3
    assert sum(bucket["ended"] for bucket in told["buckets"]) == 3
    plain = stack.text(*asked, "--buckets", "4").splitlines()
    assert any(line.startswith("3 attempts ended since ") for line in plain)
    (titles,) = (place for place, line in enumerate(plain) if line.startswith("SINCE "))
    rows = plain[titles + 1 : plain.index("", titles)]
    assert sum(int(line.split()[1]) for line in rows) == 3
    assert all(re.search(" [1-9]", line) for line in rows), "where there was nothing is no row"
    drawn = stack.on_a_terminal(*asked, "--buckets", "4")
    assert re.search(r"ended +▁*█ peak 3", drawn)
    assert "SINCE" not in drawn


def test_usage_tells_what_an_account_has_used(stack: Stack) -> None:
    stack.text("run", "--cores", "2", "--", "sleep", "0.3")
    stack.call("run", "--", "false", code=1)
    used = eventually(lambda: stack.json("usage", "--json", "--window", "1 h")["_items"], 20)
    assert used[0]["failed"] >= 1
    assert used[0]["core_seconds"] > 0.5
    assert "CORE h" in stack.text("usage")


def test_stats_begin_where_there_is_something(stack: Stack) -> None:
    stack.call("run", "--tag", "set=first", "--", "true")
    told = stack.json("stats", "--tag", "set=first", "--json")["tasks"]
    assert told["buckets"][0]["ended"] == 1 or told["buckets"][0]["cores"] > 0
    plain = stack.text("stats", "--tag", "set=first")
    assert "1 attempt ended since " in plain
    assert "1 worker runs 0 tasks" in plain
    of_old = stack.json("stats", "--tag", "set=first", "--window", "1 day", "--json")["tasks"]
    assert of_old["buckets"][0]["ended"] == 0, "whoever says how far back gets that"


def test_a_worker_is_drained_and_removed(stack: Stack) -> None:
    (worker,) = stack.text("worker", "list", "-q").splitlines()
    more = stack.processes.banyan(
        "worker", "--host", "second", "--cores", "1", environment=stack.environment
    )
    eventually(lambda: "second" in stack.text("worker", "list"), 30)
    stack.call("worker", "drain", "second")
    assert re.search("second +draining", stack.text("worker", "list"))
    stack.call("worker", "remove", "second", worker, code=2)
    stack.call("worker", "remove", "second")
    assert more.wait(30) is not None
    assert stack.text("worker", "list", "-q") == worker
    stack.call("worker", "drain", "nowhere", code=3)


def test_a_drained_worker_is_said_to_be_the_reason(stack: Stack) -> None:
    (worker,) = stack.json("worker", "list", "--json")
    stack.call("worker", "drain", worker["_id"])
    task = stack.text("submit", "-q", "--", "true")
    large = stack.text("submit", "-q", "--cores", "5", "--", "true")
    told = stack.text("explain", task)
    assert "the worker that could run it is drained" in told
    assert f"banyan worker resume {worker['host']}" in told
    assert "5 cores wanted, the nearest has 4 cores" in stack.text("explain", large)
    run = stack.begin("run", "--", "true")
    assert run.stderr is not None
    assert f"banyan worker resume {worker['host']}".encode() in run.stderr.readline()
    stack.call("worker", "resume", worker["host"])
    assert run.wait(30) == 0
    stack.call("wait", task)
    stack.call("cancel", large)


# --- settings and completion -------------------------------------------------------------


def test_config_tells_where_a_setting_comes_from(stack: Stack) -> None:
    told = stack.json("config", "show", "--json", environment={"BANYAN_LEASE_SECONDS": "20"})
    assert told["LEASE_SECONDS"] == {"value": "20.0", "origin": "BANYAN_LEASE_SECONDS"}
    assert told["PORT"]["origin"].endswith("settings.py")
    assert told["url"]["value"] == stack.url
    assert "[profile.local]" in told["url"]["origin"]
    assert json.loads(stack.credentials.read_text())["provider"] not in json.dumps(told)
    assert "ORIGIN" in stack.text("config", "show", "--origin")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(stack: Stack, shell: str) -> None:
    script = stack.call("completion", shell).stdout
    assert b"_BANYAN_COMPLETE" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, check=True)
    asked = {"_BANYAN_COMPLETE": "bash_complete", "COMP_WORDS": "banyan ls --state f"}
    found = stack.text(environment={**asked, "COMP_CWORD": "3"})
    assert found.splitlines() == ["plain,failure", "plain,failed"]
