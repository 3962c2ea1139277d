"""How the launcher starts a process: its surroundings, its output, how its end is told."""

import signal
from pathlib import Path

import pytest

from banyan.worker.forking import failure_in
from tests.worker.launched import Launched


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_an_exit_code_is_told(launcher: Launched, code: int):
    ended, _ = launcher.run(f"exit {code}")
    assert (ended["code"], ended["signal"], ended["why"]) == (code, None, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_told(launcher: Launched, number: signal.Signals):
    ended, _ = launcher.run(f"kill -{int(number)} $$")
    assert (ended["code"], ended["signal"], ended["why"]) == (None, int(number), None)


def test_the_start_is_told_with_the_process_id(launcher: Launched):
    attempt = launcher.shell("echo $$")
    launcher.ended(attempt)
    started = launcher.until("started", attempt)
    assert launcher.output(attempt) == f"{started['pid']}\n".encode()


def test_the_environment_is_what_was_given_and_nothing_else(launcher: Launched):
    _, output = launcher.run("env", env={"GREETING": "two\nlines", "PATH": "/bin:/usr/bin"})
    lines = set(output.decode().splitlines())
    assert {"GREETING=two", "lines", "PATH=/bin:/usr/bin"} <= lines
    names = {line.split("=")[0] for line in lines}
    assert names <= {"GREETING", "lines", "PATH", "BANYAN_ATTEMPT", "PWD", "_", "SHLVL", "OLDPWD"}


def test_it_runs_in_the_directory_that_was_asked_for(launcher: Launched, tmp_path: Path):
    there = tmp_path / "with space"
    there.mkdir()
    assert launcher.run("pwd -P", cwd=str(there))[1] == f"{there.resolve()}\n".encode()
    assert launcher.run("pwd -P")[1] == b"/\n"


def test_a_directory_that_does_not_exist_is_named(launcher: Launched):
    ended, _ = launcher.run("true", cwd="/does/not/exist")
    assert ended["code"] == 126
    assert ended["reason"] == "cwd '/does/not/exist': No such file or directory"


def test_a_program_that_does_not_exist_is_named(launcher: Launched):
    ended = launcher.ended(launcher.start(["no-such-program"]))
    assert ended["code"] == 127
    assert "no program 'no-such-program' in PATH" in ended["reason"]


@pytest.mark.parametrize("name", ["/does/not/exist", "", "./here"])
def test_a_file_that_does_not_exist_is_a_failure(launcher: Launched, name: str):
    assert launcher.ended(launcher.start([name]))["code"] in (126, 127)


def test_a_file_that_is_not_executable_is_told_from_a_missing_one(
    launcher: Launched, tmp_path: Path
):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hello\n")
    ended = launcher.ended(launcher.start(["program"], env={"PATH": str(tmp_path)}))
    assert (ended["code"], ended["reason"]) == (126, f"{str(program)!r} is not executable")


def test_programs_are_looked_for_in_the_path_of_the_task(launcher: Launched, tmp_path: Path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    attempt = launcher.start(["program"], env={"PATH": f"/bin:{tmp_path}"})
    assert launcher.ended(attempt)["code"] == 0
    assert launcher.output(attempt) == b"hello\n"


def test_an_argument_that_no_process_can_have_is_a_failure(launcher: Launched):
    ended = launcher.ended(launcher.start(["/bin/echo", "x" * 200_000]))
    assert ended["code"] == 126
    assert "Argument list too long" in ended["reason"]


def test_arguments_arrive_as_they_are(launcher: Launched):
    attempt = launcher.start(["/usr/bin/printf", "%s|", "a b", "$HOME", "", "*", "é\n"])
    launcher.ended(attempt)
    assert launcher.output(attempt).decode() == "a b|$HOME||*|é\n|"


def test_input_is_empty(launcher: Launched):
    ended, output = launcher.run("cat; echo $?")
    assert (ended["code"], output) == (0, b"0\n")


def test_a_task_leads_a_session_of_its_own(launcher: Launched):
    attempt = launcher.shell("cat /proc/self/stat")
    launcher.ended(attempt)
    fields = launcher.output(attempt).decode().rpartition(")")[2].split()
    pid = str(launcher.until("started", attempt)["pid"])
    assert fields[2:4] == [pid, pid]


def test_signals_that_python_ignores_work_in_a_task(launcher: Launched):
    ended, output = launcher.run("sh -c 'kill -PIPE $$'; echo $?")
    assert output == b"141\n", ended


def test_open_files_of_the_launcher_are_not_the_tasks(launcher: Launched):
    sleeper = launcher.shell("exec sleep 100")
    launcher.until("started", sleeper)
    _, output = launcher.run("ls /proc/self/fd")
    assert output.split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory that ls reads


def test_the_limit_of_open_files_is_the_agents(launcher: Launched):
    import resource

    _, output = launcher.run("ulimit -Sn")
    assert int(output) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_an_attempt_is_started_once(launcher: Launched, tmp_path: Path):
    file = tmp_path / "starts"
    for _ in range(2):
        launcher.shell(f"echo x >> {file}", attempt="same")
    launcher.ended("same")
    launcher.shell(f"echo x >> {file}", attempt="same")
    launcher.run("true")
    assert file.read_text() == "x\n"


def test_a_start_that_comes_too_late_is_refused_and_not_held_against_the_task(launcher: Launched):
    ended = launcher.ended(launcher.shell("true", before=0))
    assert (ended["why"], ended["code"]) == ("not_started", None)


def test_time_and_memory_used_are_told(launcher: Launched):
    script = "import time; x = b'x' * 100_000_000\nwhile time.process_time() < 0.3: pass"
    ended = launcher.ended(launcher.start(["python3", "-c", script]))
    assert 0.3 <= ended["cpu_seconds"] < 10
    assert 100_000_000 < ended["peak_memory_bytes"] < 300_000_000


@pytest.mark.parametrize(
    "told",
    [
        "x", "{}", "1", "[]", "[126]", "[126, 1]", "[126, null]", '[0, "a"]', '["126", "a"]',
        '[[], "a"]', "[" * 9000, "\xff", '[126, "a", 1]', "null",
    ],
)  # fmt: skip
def test_a_child_that_talks_nonsense_has_not_started(told: str):
    """Until its program is there it is the task's user who speaks."""
    failure = failure_in(lambda pipe, most: told.encode("latin-1"), 0)
    assert failure
    assert (failure.exit_code, failure.reason) == (
        126, "it could not be started, and did not say why",
    )  # fmt: skip


def test_of_what_a_child_says_no_more_is_kept_than_of_a_reason():
    failure = failure_in(lambda pipe, most: b'[127, "\\ud800%s"]' % (b"a" * 9000), 0)
    assert failure
    assert (failure.exit_code, failure.reason) == (127, "?" + "a" * 599)
    assert failure_in(lambda pipe, most: b"", 0) is None
