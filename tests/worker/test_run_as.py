"""Tasks as another user than the worker's, and a worker that is root."""

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from banyan.errors import EXIT_USAGE, BanyanError
from banyan.server import options as server_options
from banyan.server import stack
from banyan.worker import groups, identity, namespaces
from banyan.worker.identity import user_for
from banyan.worker.options import Options
from tests.harness import eventually
from tests.worker.crew import Crew, fields_of
from tests.worker.launched import Launched, alive

WHOM = "nobody"
LOCAL, FAR = "http://127.0.0.1:5100", "https://head.example.org:5100"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start as another user")


def options(url: str = LOCAL, run_as: str | None = None) -> Options:
    return Options(url=url, token_file=Path("token"), run_as=run_as)


def nobody() -> dict[str, Any]:
    user = user_for(options(run_as=WHOM))
    assert user is not None
    assert user.own_groups
    return user.to_json()


def be(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


# --- Who may ----------------------------------------------------------------------------


def test_root_runs_others_tasks_only_when_told_to(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    be(monkeypatch, 0)
    monkeypatch.setattr(namespaces, "found", lambda owner: namespaces.Found(True, True, True))
    with pytest.raises(BanyanError, match=r"--run-as root") as refusal:
        identity.check(options(FAR))
    assert refusal.value.word == "usage"
    for named in ("root", "0", WHOM):
        identity.check(options(FAR, named))
    assert not caplog.records
    identity.check(options(LOCAL))  # a server that only this machine reaches: with a warning
    assert "would run as root" in caplog.text


def test_who_is_not_root_runs_tasks_as_itself_and_as_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    be(monkeypatch, pwd.getpwnam(WHOM).pw_uid)
    identity.check(options(FAR))
    assert user_for(options(run_as=WHOM)) is None
    with pytest.raises(BanyanError, match="only root can"):
        identity.check(options(FAR, "root"))


@pytest.mark.parametrize("name", ["nobody-at-all", "", "4294967290", "99999999999999999999"])
def test_a_user_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(BanyanError, match="there is no such user"):
        user_for(options(run_as=name))


def test_a_stack_of_ones_own_needs_no_word_and_one_for_others_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def given(host: str, *more: str, **other: Any) -> list[str]:
        asked = server_options.Options(tmp_path, host=host, worker_options=[*more], **other)
        return stack._as_whom(asked)

    be(monkeypatch, 1000)
    assert given("0.0.0.0") == []  # noqa: S104 - only named here
    be(monkeypatch, 0)
    assert given("127.0.0.1", "--cores", "1") == ["--cores", "1", "--run-as", "root"]
    assert given("0.0.0.0", "--run-as", WHOM) == ["--run-as", WHOM]  # noqa: S104
    for exposed in ({"host": "0.0.0.0"}, {"host": "127.0.0.1", "behind_proxy": True}):  # noqa: S104
        with pytest.raises(BanyanError, match="--run-as"):
            given(**exposed)


# --- What the launcher does -------------------------------------------------------------

_WHO = "id -u; id -g; id -G; umask; pwd; ls /proc/self/fd; grep -E 'SigIgn|NoNewPrivs|CapEff' "


@needs_root
def test_a_task_is_the_user_and_nothing_more(launcher: Launched) -> None:
    user = nobody()
    ended, output = launcher.run(_WHO + "/proc/self/status", user=user, cwd="/tmp")  # noqa: S108
    assert ended["code"] == 0
    uid, gid, all_groups, umask, cwd, *rest = output.decode().splitlines()
    assert int(uid) == user["uid"]
    assert int(gid) >= groups.FIRST, "a group that nobody else has"
    assert set(map(int, all_groups.split())) == {int(gid), user["gid"], *user["groups"]}
    assert (umask, cwd) == ("0077", "/tmp")  # noqa: S108
    *files, ignored, capabilities, privileges = rest
    assert files[:3] == ["0", "1", "2"]
    assert len(files) == 4  # and the one through which `ls` looks
    assert int(ignored.split()[1], 16) == 0
    assert int(capabilities.split()[1], 16) == 0
    assert privileges.split() == ["NoNewPrivs:", "1"]


@needs_root
def test_it_is_ended_like_any_other(launcher: Launched) -> None:
    attempt = launcher.shell(
        "trap 'echo ended; exit 3' TERM; echo $$; while :; do :; done", user=nobody()
    )
    launcher.until("output", attempt)
    launcher.stop(attempt)
    ended = launcher.ended(attempt)
    assert (ended["code"], ended["why"]) == (3, "cancelled")
    assert launcher.output(attempt).endswith(b"ended\n")
    assert not alive(int(launcher.output(attempt).split()[0]))


@needs_root
def test_its_answer_goes_by_a_pipe_of_its_own(launcher: Launched) -> None:
    script = 'set -- $ANSWER; ls /proc/self/fd | wc -l; id -un >&"$1"'
    attempt = launcher.start(["bash", "-c", script], answer=("ANSWER", 100), user=nobody())
    launcher.ended(attempt)
    assert dict(launcher.frames(attempt)) == {"stdout": b"5\n", "answer": f"{WHOM}\n".encode()}


@needs_root
def test_what_the_user_may_not_run_is_told(launcher: Launched, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)  # root's own
    for argv, code in (([str(program)], 126), (["no-such-program"], 127)):
        ended = launcher.ended(launcher.start(argv, user=nobody()))
        assert ended["code"] == code
        assert ended["reason"]


# --- A whole worker ---------------------------------------------------------------------


@needs_root
def test_a_worker_runs_its_tasks_as_the_user(crew: Crew) -> None:
    crew.worker("one", "--run-as", WHOM, TMPDIR="/root/of/the/worker")
    done = crew.ended(crew.submit("env; id -un; pwd"))
    assert done["outcome"] == "success", done
    log = crew.log(done["_id"])
    found = fields_of(log)
    user = pwd.getpwnam(WHOM)
    assert (found["USER"], found["HOME"]) == (WHOM, user.pw_dir)
    assert "TMPDIR" not in found
    assert log.decode().splitlines()[-2:] == [
        WHOM,
        user.pw_dir if Path(user.pw_dir).is_dir() else "/",
    ]
    assert stat.S_IMODE(crew.state("one").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="the warning is for root")
def test_a_worker_of_root_that_was_told_nothing_warns_and_works(crew: Crew) -> None:
    worker = crew.worker("one")
    eventually(lambda: "everybody's tasks would run as root" in worker.stderr)
    assert crew.ended(crew.submit("id -u"))["outcome"] == "success"


@needs_root
def test_a_worker_of_root_that_was_told_nothing_asks_no_server_elsewhere(crew: Crew) -> None:
    crew.url = FAR
    worker = crew.worker("one")
    assert worker.wait(20) == EXIT_USAGE
    assert "--run-as" in worker.stderr
    assert not crew.state("one").exists()
