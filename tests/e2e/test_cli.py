"""The command line on a whole stack: every command as somebody at a terminal uses it."""

import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path

from tests.e2e.stack import Stack, interrupt
from tests.harness import eventually, marked_processes


def state_of(stack: Stack, id: str) -> str:
    return str(stack.json("show", "--json", id)["state"])


# --- run ---------------------------------------------------------------------------------


def test_run_prints_the_output_and_ends_with_the_tasks_code(stack: Stack) -> None:
    done = stack.call("run", "--cores", "1", "--", "sh", "-c", "echo hi; exit 3", code=3)
    assert done.stdout == b"hi\n"
    assert done.stderr == b""


def test_run_needs_no_dashes_and_leaves_the_commands_own_options_alone(stack: Stack) -> None:
    assert stack.text("run", "printf", "%s|", "--cores", "-q", "a b") == "--cores|-q|a b|"


def test_run_keeps_the_two_streams_apart_and_every_byte(stack: Stack) -> None:
    done = stack.call("run", "--", "sh", "-c", r"printf 'a\000\377\n'; echo oops >&2")
    assert done.stdout == b"a\x00\xff\n"
    assert done.stderr == b"oops\n"


def test_run_keeps_the_order_where_both_streams_are_one_place(stack: Stack) -> None:
    script = "for i in 1 2 3; do echo out $i; sleep 0.3; echo err $i >&2; sleep 0.3; done"
    done = stack.call("run", "--", "sh", "-c", script, stderr=subprocess.STDOUT)
    expected = [f"{stream} {n}" for n in (1, 2, 3) for stream in ("out", "err")]
    assert done.stdout.decode().splitlines() == expected


def test_run_ends_like_a_shell_where_a_signal_ended_the_task(stack: Stack) -> None:
    for number in (15, 34, 40, 64):  # real-time signals, too
        stack.call("run", "--", "sh", "-c", f"kill -{number} $$", code=128 + number)


def test_run_says_how_it_ended_where_there_is_no_code(stack: Stack) -> None:
    done = stack.call("run", "--timeout", "300ms", "--", "sleep", "60", code=1)
    assert b"timeout" in done.stderr


def test_run_with_shell_takes_a_line(stack: Stack) -> None:
    assert stack.text("run", "--shell", "echo a b | tr a-z A-Z") == "A B"


def test_run_is_where_its_caller_is_with_the_environment_that_is_named(
    stack: Stack, tmp_path: Path
) -> None:
    arguments = ["run", "--env", "MINE", "--env", "X=1=2", "--", "sh", "-c", "pwd; echo $MINE $X"]
    lines = stack.text(*arguments, cwd=tmp_path, environment={"MINE": "here"}).splitlines()
    assert lines == [str(tmp_path), "here 1=2"]
    assert stack.text("run", "--cwd", "/", "--", "pwd") == "/"


def test_run_follows_every_attempt(stack: Stack, tmp_path: Path) -> None:
    script = 'echo attempt; test -e tried || { touch tried; exit 1; }; echo "good at last"'
    text = stack.text("run", "--retries", "1", "--", "sh", "-c", script, cwd=tmp_path)
    assert text.splitlines() == ["attempt", "attempt", "good at last"]


def test_ctrl_c_cancels_the_task_and_ends_with_130(stack: Stack) -> None:
    running = stack.begin("run", "--name", "interrupted", "--", "sh", "-c", "echo up; sleep 600")
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    code, said = interrupt(running)
    assert code == 130
    id = stack.text("ls", "-q", "--name", "interrupted")
    assert id in said
    eventually(lambda: state_of(stack, id) == "cancelled")


def test_run_outlives_a_server_that_dies(stack: Stack) -> None:
    running = stack.begin("run", "--", "sh", "-c", "echo before; sleep 2; echo after; exit 6")
    assert running.stdout is not None
    assert running.stdout.readline() == b"before\n"
    servers = [
        pid
        for pid, command in marked_processes(stack.processes.mark).items()
        if "banyan.server.serve" in command
    ]
    assert servers
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    output, said = running.communicate(timeout=60)
    assert (output, running.returncode) == (b"after\n", 6), said


# --- submit, ls, show, log, wait ---------------------------------------------------------


def test_submit_prints_the_id_alone(stack: Stack) -> None:
    done = stack.call("submit", "--", "true")
    assert re.fullmatch(rb"[0-9a-f]{24}\n", done.stdout)
    quiet = stack.call("submit", "-q", "--", "true")
    assert re.fullmatch(rb"[0-9a-f]{24}\n", quiet.stdout)
    assert quiet.stderr == b""


def test_submit_says_all_that_was_asked_for(stack: Stack) -> None:
    task = stack.json(
        "submit", "--json", "--hold", "--cores", "2.5", "--memory", "1.5 GiB", "--gpus", "1",
        "--disk", "1 GB", "--name", "x y", "--queue", "night", "--priority", "high",
        "--label", "site=a", "--tag", "k=v", "--retries", "2", "--timeout", "2h", "--", "true",
    )  # fmt: skip
    wanted = task["requested_resources"]
    assert wanted["cpu_cores"]["count"] == 2.5
    assert wanted["cpu_memory_bytes"] == 3 * 2**29
    assert (wanted["gpu_count"], wanted["disk_bytes"]) == (1, 10**9)
    assert (task["name"], task["queue"], task["priority"]) == ("x y", "night", 10)
    assert (task["labels"], task["tags"]) == ({"site": "a"}, {"k": "v"})
    assert (task["max_attempt_count"], task["timeout_milliseconds"]) == (3, 7_200_000)
    assert (task["state"], task["command"]) == ("inactive", ["true"])
    share = stack.json("submit", "--json", "--hold", "--cores", "50%", "--", "true")
    assert share["requested_resources"]["cpu_cores"]["percent"] == 50


def test_what_the_server_refuses_is_told_field_by_field(stack: Stack) -> None:
    wrong = ("--queue", "a b", "--priority", "soon", "--gpus", "9999", "--custom", "a b=1")
    done = stack.call("submit", *wrong, "--", "true", code=2)
    told = done.stderr.decode()
    assert told.startswith("banyan: ")
    for option in wrong[::2]:
        assert f"\n  {option}: " in told
    assert "requested_resources" not in told


def test_after_waits_for_success_failure_or_any_end(stack: Stack) -> None:
    bad = stack.text("submit", "-q", "--hold", "--", "false")
    chained = {
        option: stack.text("submit", "-q", option, bad, "--", "true")
        for option in ("--after", "--after-fail", "--after-any")
    }
    assert state_of(stack, chained["--after"]) == "inactive"
    stack.call("release", bad)
    stack.call("wait", chained["--after-fail"], chained["--after-any"])
    stack.call("wait", chained["--after"], code=1)
    assert state_of(stack, chained["--after"]) == "cancelled"


def test_wait_tells_who_failed_and_how(stack: Stack) -> None:
    good = stack.text("submit", "-q", "--", "true")
    bad = stack.text("submit", "-q", "--", "sh", "-c", "exit 7")
    stack.call("wait", good)
    done = stack.call("wait", "--json", good, bad, code=1)
    assert bad in done.stderr.decode()
    assert "failure (7)" in done.stderr.decode()
    assert [task["outcome"] for task in json.loads(done.stdout)] == ["success", "failure"]


def test_wait_gives_up_in_time(stack: Stack) -> None:
    held = stack.text("submit", "-q", "--hold", "--", "true")
    stack.call("wait", "--timeout", "1s", held, code=75)
    stack.call("wait", "f" * 24, code=3)


def test_ids_may_be_shortened_and_the_newest_is_last(stack: Stack) -> None:
    id = stack.text("submit", "-q", "--hold", "--", "true")
    assert stack.json("show", "--json", "last")["_id"] == id
    assert stack.json("show", "--json", id[:23])["_id"] == id
    assert "several" in stack.call("show", id[:6], code=2).stderr.decode()
    stack.call("show", "ffffff", code=3)
    stack.call("show", "f" * 24, code=3)
    stack.call("show", "not-an-id", code=2)


def test_ls_lists_what_is_asked_for(stack: Stack) -> None:
    ids = [
        stack.text("submit", "-q", "--hold", "--tag", "set=ls", "--name", name, "--", "true")
        for name in ("one", "two", "three")
    ]
    newest_first = list(reversed(ids))
    assert stack.text("ls", "-q", "--tag", "set=ls").splitlines() == newest_first
    assert stack.text("ls", "-q", "--tag", "set=ls", "--name", "two") == ids[1]
    assert stack.text("ls", "-q", "--tag", "set=ls", "-n", "2").splitlines() == newest_first[:2]
    assert stack.text("ls", "-q", "--tag", "set=ls", "--state", "failed") == ""
    assert [task["name"] for task in stack.json("ls", "--json", "--tag", "set=ls")] == [
        "three", "two", "one",
    ]  # fmt: skip
    where = json.dumps({"tags.set": "ls", "name": {"$in": ["one", "two"]}})
    assert len(stack.text("ls", "-q", "--where", where).splitlines()) == 2
    title, *rows = stack.text("ls", "--tag", "set=ls").splitlines()
    assert title.split()[:3] == ["ID", "NAME", "STATE"]
    assert rows[0].split()[:3] == [ids[2], "three", "inactive"]
    stack.call("ls", "--state", "sleeping", code=2)


def test_states_and_outcomes_select_alike(stack: Stack) -> None:
    id = stack.text("submit", "-q", "--tag", "set=outcome", "--", "false")
    stack.call("wait", id, code=1)
    for word in ("terminated", "failure", "failed"):
        assert stack.text("ls", "-q", "--tag", "set=outcome", "--state", word) == id
    assert stack.text("ls", "-q", "--tag", "set=outcome", "--state", "open") == ""


def test_show_tells_of_the_task_and_its_attempts(stack: Stack) -> None:
    id = stack.text("submit", "-q", "--retries", "1", "--name", "shown", "--", "sh", "-c", "exit 4")
    stack.call("wait", id, code=1)
    shown = stack.text("show", id)
    assert "shown" in shown
    assert "sh -c 'exit 4'" in shown
    assert len(re.findall(r"^[12] +failure \(4\)", shown, re.MULTILINE)) == 2
    assert len(stack.json("show", "--json", id)["attempts"]) == 2


def test_log_reads_any_attempt_and_stream(stack: Stack, tmp_path: Path) -> None:
    script = "echo x >>count; wc -l <count; echo err >&2; exit 1"
    id = stack.text(
        "submit", "-q", "--retries", "1", "--cwd", str(tmp_path), "--", "sh", "-c", script
    )
    stack.call("wait", id, code=1)
    assert stack.text("log", "--stream", "stdout", id).strip() == "2"
    assert stack.text("log", "--stream", "stdout", "--attempt", "1", id).strip() == "1"
    assert stack.text("log", "--stream", "stderr", id) == "err"
    assert sorted(stack.text("log", id).split()) == ["2", "err"]
    stack.call("log", "--attempt", "9", id, code=3)


def test_log_follows_until_the_end(stack: Stack) -> None:
    script = "for i in 1 2 3 4 5; do echo same; sleep 0.2; done"
    id = stack.text("submit", "-q", "--", "sh", "-c", script)
    assert stack.text("log", "-f", id) == "\n".join(["same"] * 5)
    assert stack.text("log", "-f", "--attempt", "1", "--stream", "stdout", id).count("same") == 5
    cancelled = stack.text("submit", "-q", "--hold", "--", "true")
    stack.call("cancel", cancelled)
    assert stack.text("log", "-f", cancelled) == ""


def test_a_large_output_comes_whole(stack: Stack) -> None:
    script = "for i in $(seq 1 60000); do echo line $i of many that were written; done"
    lines = stack.text("run", "--", "sh", "-c", script).splitlines()
    assert len(lines) == 60_000
    assert lines[-1] == "line 60000 of many that were written"


def test_cancel_and_retry(stack: Stack) -> None:
    parent = stack.text("submit", "-q", "--hold", "--", "true")
    child = stack.text("submit", "-q", "--after", parent, "--", "true")
    stack.call("cancel", parent)
    eventually(lambda: state_of(stack, child) == "cancelled")
    stack.call("retry", "--downstream", parent)
    stack.call("wait", parent, child)
    stack.call("cancel", parent)
    assert state_of(stack, parent) == "terminated"


# --- on a terminal -----------------------------------------------------------------------


def test_a_terminal_gets_a_drawn_table_a_pipe_plain_columns(stack: Stack) -> None:
    id = stack.text("submit", "-q", "--tag", "set=tty", "--name", "e\x1b]0;evil\x07", "--", "true")
    stack.call("wait", id)
    drawn = stack.on_a_terminal("ls", "--tag", "set=tty")
    assert id in drawn
    assert "\x1b[32m" in drawn
    assert "\x1b]0" not in drawn
    assert "\x1b[32m" not in stack.on_a_terminal("ls", "--tag", "set=tty", NO_COLOR="1")
    narrow = stack.on_a_terminal("ls", "--tag", "set=tty", COLUMNS="60")
    assert id in narrow
    assert "success" in narrow
    plain = stack.text("ls", "--tag", "set=tty")
    assert "\x1b" not in plain
    assert "\x07" not in plain


def test_output_cannot_take_a_terminal_over_unless_asked(stack: Stack) -> None:
    evil = r"\033]0;evil\007\033[6nplain \033[31mred\033[0m\n"
    id = stack.text("submit", "-q", "--", "printf", evil)
    stack.call("wait", id)
    shown = stack.on_a_terminal("log", id)
    assert "evil" not in shown
    assert "plain \x1b[31mred" in shown
    assert "\x1b]0;evil\x07" in stack.on_a_terminal("log", "--raw", id)
    assert "\x1b]0;evil\x07" in stack.text("log", id)


# --- access ------------------------------------------------------------------------------


def test_up_made_a_profile_that_only_its_user_may_read(stack: Stack) -> None:
    config = Path(stack.environment["BANYAN_CONFIG"])
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stack.url in config.read_text()


def test_accounts_come_and_go(stack: Stack, tmp_path: Path) -> None:
    token = stack.text("account", "create", "rack7", "--role", "provider")
    file = tmp_path / "token"
    file.write_text(token + "\n")
    as_rack7 = ["--url", stack.url, "--token-file", str(file)]
    assert stack.text("ls", "-q", *as_rack7) == ""
    assert "rack7" in stack.text("account", "list")
    assert token not in stack.text("account", "list", "--json")
    refused = stack.call("account", "create", "x", "--role", "provider", *as_rack7, code=5).stderr
    assert refused == b"banyan: this takes the token of an admin; yours is that of a provider\n"
    again = stack.call("account", "create", "rack7", "--role", "provider", code=4).stderr
    assert b"'banyan account issue rack7' prints one more token" in again
    stack.call("account", "revoke", "rack7")
    stack.call("ls", *as_rack7, code=5)
    assert re.search("rack7 +provider +revoked", stack.text("account", "list"))
    file.write_text(stack.text("account", "issue", "rack7"))
    stack.call("ls", *as_rack7)
    assert not re.search("rack7 +provider +revoked", stack.text("account", "list"))
    stack.call("account", "revoke", "nobody-of-that-name", code=3)


def test_login_tries_the_token_and_remembers_it(stack: Stack, tmp_path: Path) -> None:
    mine = {"BANYAN_CONFIG": str(tmp_path / "mine.toml")}
    token = json.loads(stack.credentials.read_text())["provider"]
    stack.call("login", stack.url, "--token-file", "-", input=b"wrong", environment=mine, code=5)
    stack.call("ls", environment=mine, code=2)
    for words, said in [
        (("ftp://x",), b"is not the URL of a server"),  # no token is asked for
        ((stack.url, "--token-file", "nosuch"), b"--token-file nosuch: No such file or directory"),
    ]:
        assert said in stack.call("login", *words, environment=mine, code=2).stderr
    stack.call("login", stack.url, "--token-file", "-", input=token.encode(), environment=mine)
    stack.call("ls", environment=mine)
    assert stat.S_IMODE((tmp_path / "mine.toml").stat().st_mode) == 0o600
    stack.call("login", stack.url, "--token-file", str(stack.credentials), environment=mine)
    stack.call("account", "list", environment=mine)


def test_the_environment_is_enough(stack: Stack, tmp_path: Path) -> None:
    token = json.loads(stack.credentials.read_text())["provider"]
    bare = {"BANYAN_CONFIG": str(tmp_path / "none.toml")}
    stack.call("ls", environment={**bare, "BANYAN_URL": stack.url, "BANYAN_TOKEN": token})
    stack.call("ls", environment={**bare, "BANYAN_URL": stack.url}, code=5)
    stack.call("ls", environment={**bare, "BANYAN_URL": stack.url, "BANYAN_TOKEN": "x"}, code=5)


def test_the_doctor_looks_at_a_database_that_is_at_work(stack: Stack, tmp_path: Path) -> None:
    stack.call("run", "--", "true")
    verdict, *notes = stack.text("doctor", "--data", str(stack.data)).splitlines()
    assert verdict == "nothing is wrong"
    assert all("closed here: only you can reach its socket" in note for note in notes)
    assert b"no private MongoDB" in stack.call("doctor", "--data", str(tmp_path), code=2).stderr
