"""Options that describe a task, what may be changed of it later, and what the verbs say."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from banyan.domain.units import parse_time
from tests.e2e.stack import Stack
from tests.harness import eventually

STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")


def said(stack: Stack, *arguments: str, code: int = 0) -> list[str]:
    """What a command says beside its result."""
    return stack.call(*arguments, code=code).stderr.decode().splitlines()


def held(stack: Stack, *options: str) -> str:
    return stack.text("submit", "-q", "--hold", *options, "--", "true")


def test_what_the_api_can_do_has_options(stack: Stack) -> None:
    task = stack.json(
        "submit", "--hold", "--json", "--memory", "64M", "--disk", "1G", "--custom", "licence=2",
        "--grace", "5s", "--retries", "2", "--retry-delay", "1m", "--timeout", "1h",
        "--not-before", "2h", "--dedupe-key", "what-the-api-can-do", "--", "true",
    )  # fmt: skip
    resources = task["requested_resources"]
    assert resources["cpu_memory_bytes"] == 64 * 2**20
    assert resources["disk_bytes"] == 2**30
    assert resources["custom"] == {"licence": 2}
    assert task["max_shutdown_time_milliseconds"] == 5_000
    assert (task["max_attempt_count"], task["retry_delay_milliseconds"]) == (3, 60_000)
    assert task["dedupe_key"] == "what-the-api-can-do"
    wait = parse_time(task["not_before"]) - datetime.now(UTC)
    assert timedelta(hours=1.9) < wait <= timedelta(hours=2)
    assert stack.json("show", "--json", held(stack))["max_shutdown_time_milliseconds"] == 30_000


def test_the_same_key_is_the_same_task(stack: Stack) -> None:
    key = ("--dedupe-key", "daily", "--hold")
    first = stack.call("submit", *key, "--", "true")
    again = stack.call("submit", *key, "--", "true")
    assert first.stdout == again.stdout
    refused = said(stack, "submit", *key, "--", "false", code=4)
    assert "daily" in refused[0]
    many = ("submit", "--dedupe-key", "many", "--hold", "--array")
    stack.call(*many, "1-2", "--", "true")
    assert "3 tasks, held" in said(stack, *many, "1-3", "--", "true")[0]
    again = stack.call(*many, "1-3", "--", "true")
    assert b"3 of them had been submitted before" in again.stderr
    assert len(stack.text("ls", "-q", again.stdout.decode().strip()).splitlines()) == 3


def test_lanes_keep_an_array_from_running_all_at_once(stack: Stack, tmp_path: Path) -> None:
    alone = "mkdir lock && sleep 0.05 && rmdir lock"
    sweep = ("submit", "-q", "--array", "1-4%1", "--cwd", str(tmp_path), "--hold", "--shell", alone)
    ids = stack.text(*sweep).splitlines()
    assert said(stack, "release", "last") == ["1 task released"]
    assert said(stack, "wait", *ids) == ["4 tasks succeeded"]


def test_what_waits_is_changed(stack: Stack) -> None:
    waiting = stack.text("submit", "-q", "--memory", "1P", "--", "true")
    assert said(stack, "set", waiting, "--memory", "64M", "--priority", "high") == [
        "1 task changed"
    ]
    stack.call("wait", waiting)
    task = stack.json("show", "--json", waiting)
    assert task["priority"] == 10
    assert task["requested_resources"]["cpu_memory_bytes"] == 64 * 2**20
    refused = said(stack, "set", waiting, "--memory", "1G", code=2)
    assert "can't be changed while the task is terminated" in refused[1]
    assert "--help" in said(stack, "set", waiting, code=2)[0]


def test_what_waits_is_held(stack: Stack) -> None:
    name = ("--name", "to-be-held")
    ids = stack.text("submit", "-q", "--array", "1-3", *name, "--memory", "1P", "--", "true")
    told = said(stack, "set", "@to-be-held", "--hold", "--memory", "64M")
    assert told == ["3 tasks changed; let them run with: banyan release"]
    assert {task["state"] for task in stack.json("ls", "--json", *name)} == {"inactive"}
    assert said(stack, "release", "@to-be-held") == ["3 tasks released"]
    stack.call("wait", *ids.splitlines())


def test_what_waits_for_others_cannot_be_held(stack: Stack) -> None:
    parent = held(stack)
    child = stack.text("submit", "-q", "--after", parent, "--", "true")
    assert "waits for other tasks" in said(stack, "set", "--hold", child, code=4)[0]
    assert said(stack, "release", "--tag", "no=such", parent, code=3)
    assert said(stack, "release", parent) == ["1 task released"]
    stack.call("wait", child)


def test_what_had_too_little_is_retried_with_more(stack: Stack) -> None:
    enough = 'test "$BANYAN_MEMORY_BYTES" -ge 200000000'
    task = stack.text("submit", "-q", "--memory", "100M", "--shell", enough)
    stack.call("wait", task, code=1)
    told = said(stack, "retry", task, "--memory", "200M", "--timeout", "1h")
    assert told == ["1 task will be tried again"]
    stack.call("wait", task)
    assert stack.json("show", "--json", task)["timeout_milliseconds"] == 3_600_000


def test_a_cancel_says_what_comes_and_may_be_forced(stack: Stack) -> None:
    stubborn = stack.text("submit", "-q", "--grace", "1h", "--", *STUBBORN)
    eventually(lambda: stack.text("log", stubborn) == "ready", 30)
    told = said(stack, "cancel", stubborn)
    assert told[0].startswith("1 task being ended: SIGTERM now")
    assert "--force" in stack.text("explain", stubborn)
    assert said(stack, "cancel", "--force", stubborn)[0] in (
        "1 task being killed",
        "1 task cancelled",
    )
    stack.call("wait", "--timeout", "30s", stubborn, code=1)
    assert said(stack, "cancel", held(stack)) == ["1 task cancelled"]


def test_where_there_is_nothing_to_do_it_says_so(stack: Stack) -> None:
    nothing = {
        "cancel": "all of them have ended",
        "retry": "none of them has failed",
        "release": "none of them is held",
        "set --priority 5": "none of them waits to begin",
    }
    stack.call("wait", stack.text("submit", "-q", "--tag", "set=ended", "--", "true"))
    for verb, none in nothing.items():
        told = said(stack, *verb.split(), "--tag", "set=ended")
        assert told == [f"banyan: nothing to do for 1 task: {none}"]
    told = said(stack, "cancel", "--tag", "set=nowhere", code=3)
    assert told == ["banyan: there is no such task"]


def test_a_worker_is_drained_and_resumed_aloud(stack: Stack) -> None:
    (worker,) = stack.text("worker", "list", "-q").splitlines()
    assert said(stack, "worker", "drain", worker)[0].startswith("1 worker draining")
    assert said(stack, "worker", "resume", worker) == ["1 worker resumed"]
