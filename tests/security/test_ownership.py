"""A directory of somebody else is not used: who can write there could put anything into it."""

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from banyan import ownership, profiles
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.server.bootstrap import ensure_credentials
from banyan.server.directory import DirectoryLock
from banyan.worker.state import Identity, StateDirectory, open_state
from tests.harness import Processes
from tests.harness.processes import ROOT
from tests.security.others import NOBODY, give
from tests.worker.test_run_as import needs_root


def use_as_data(directory: Path) -> None:
    with DirectoryLock(directory):
        pass


def use_as_state(directory: Path) -> None:
    open_state(directory, "http://127.0.0.1:1").close()


USES = pytest.mark.parametrize("use", [use_as_data, use_as_state])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """`above/data`, both there and ours."""
    (tmp_path / "above" / "data").mkdir(parents=True)
    for directory in (tmp_path / "above", tmp_path / "above" / "data"):
        directory.chmod(0o755)
    return tmp_path / "above" / "data"


@pytest.fixture
def kept(place: Path) -> Iterator[Path]:
    """A file of ours, elsewhere, to which the lock that somebody has put there leads."""
    file = place.parent.parent / "kept"
    file.write_text("kept")
    yield file
    assert file.read_text() == "kept"


def refused(use: Callable[[Path], None], directory: Path, said: str) -> None:
    before = sorted(directory.iterdir())
    with pytest.raises(BanyanError, match=said) as refusal:
        use(directory)
    assert refusal.value.word == "usage"
    assert sorted(directory.iterdir()) == before


@USES
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777])
def test_where_everybody_may_write_nothing_is_believed(
    place: Path, kept: Path, use: Callable[[Path], None], mode: int
):
    (place / "lock").symlink_to(kept)
    place.chmod(mode)
    refused(use, place, f"everybody.*{mode:04o}.*chmod go-w")


@USES
@needs_root
def test_where_a_group_may_write_neither(place: Path, use: Callable[[Path], None]):
    os.chown(place, -1, NOBODY)
    place.chmod(0o770)
    refused(use, place, "the group .* 0770")


@USES
@needs_root
def test_what_is_somebody_elses_is_not_used(place: Path, use: Callable[[Path], None]):
    give(place)
    refused(use, place, "belongs to nobody")


@USES
@needs_root
@pytest.mark.parametrize("name", ["mongo", "worker.json", "credentials", "lock"])
def test_what_somebody_else_has_put_there_is_not_used(
    place: Path, kept: Path, use: Callable[[Path], None], name: str
):
    """It was open to all for a while: what came in then is still there."""
    (place / name).symlink_to(kept)
    give(place / name)
    refused(use, place, f"{name} belongs to nobody")


@USES
def test_a_directory_that_anybody_could_exchange_is_not_used(
    place: Path, use: Callable[[Path], None]
):
    place.parent.chmod(0o777)
    refused(use, place, "above may be written by everybody")
    place.parent.chmod(0o1777)  # as /tmp is: what is ours stays where it is
    use(place)


@USES
@needs_root
def test_nor_one_below_somebody_elses_or_behind_somebody_elses_link(
    place: Path, use: Callable[[Path], None]
):
    link = place.parent.parent / "link"
    link.symlink_to(place.parent)
    use(link / "data")
    give(link)
    refused(use, link / "data", "link belongs to nobody")
    give(place.parent)
    refused(use, place, "above belongs to nobody")


@USES
def test_a_link_of_ours_is_not_written_through(
    place: Path, kept: Path, use: Callable[[Path], None]
):
    (place / "lock").symlink_to(kept)
    refused(use, place, "lock is a link")


def test_files_of_a_worker_are_no_links(place: Path, kept: Path):
    state = StateDirectory(place)
    for name in ("worker.json", "worker.json.new", "drains"):
        (place / name).symlink_to(kept)
    with pytest.raises(BanyanError, match=r"worker\.json is a link"):
        state.identity()
    with pytest.raises(BanyanError, match="drains is a link"):
        state.note_drain()
    state.keep_identity(Identity("a", 60))  # in place of the links
    assert state.identity() == Identity("a", 60)
    assert (place / "worker.json").stat().st_mode & 0o777 == 0o600
    state.close()


def test_tokens_are_neither_read_nor_written_through_a_link(
    place: Path, kept: Path, fresh_database: str
):
    (place / "credentials").symlink_to(kept)
    with pytest.raises(BanyanError, match="credentials is a link"):
        ensure_credentials(fresh_database, place / "credentials")
    (place / "credentials").unlink()
    (place / "credentials.new").symlink_to(kept)
    ensure_credentials(fresh_database, place / "credentials")
    assert (place / "credentials").lstat().st_mode & 0o777 == 0o600


@needs_root
def test_root_starts_nothing_in_somebody_elses_directory(
    place: Path, processes: Processes, kept: Path
):
    (place / "mongo").mkdir()
    (place / "mongo" / "key").write_text("known to nobody")
    (place / "lock").symlink_to(kept)
    for path in (place, *place.rglob("*")):
        give(path)
    for command in ("up", "server", "doctor"):
        started = processes.banyan(command, "--data", str(place))
        assert started.wait(30) == EXIT_USAGE
        assert f"{place} belongs to nobody" in started.stderr
        assert "Traceback" not in started.stderr
    assert sorted(path.name for path in place.iterdir()) == ["lock", "mongo"]


@USES
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_what_others_can_read_at_most_is_used(place: Path, use: Callable[[Path], None], mode: int):
    place.chmod(mode)
    use(place)
    assert (place / "lock").stat().st_mode & 0o777 == 0o600


@USES
def test_what_can_be_no_directory_is_told(place: Path, use: Callable[[Path], None]):
    (place / "file").touch()
    for path in (place / "file", place / "file" / "below", Path("/proc/none")):
        with pytest.raises(BanyanError, match=f"{path} cannot be used") as refusal:
            use(path)
        assert refusal.value.word == "usage"


@USES
def test_what_is_missing_is_made_for_us_alone_to_write(place: Path, use: Callable[[Path], None]):
    before = os.umask(0)
    try:
        use(place / "a" / "b")
    finally:
        os.umask(before)
    assert (place / "a").stat().st_mode & 0o777 == 0o755
    assert (place / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_group_of_ones_own_is_nobody_else(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Many systems make a group for each user, and let it write by `umask`."""
    user = SimpleNamespace(pw_gid=4242, pw_name="alice")
    group = SimpleNamespace(gr_name="alice", gr_mem=["alice"])
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    monkeypatch.setattr(grp, "getgrgid", lambda _: group)
    found = SimpleNamespace(st_uid=os.geteuid(), st_gid=4242, st_mode=0o40775)
    ownership.demand_own(place, found)  # type: ignore[arg-type]
    for name, value in (("gr_mem", ["alice", "bob"]), ("gr_name", "users")):
        monkeypatch.setattr(group, name, value)
        with pytest.raises(BanyanError, match="the group"):
            ownership.demand_own(place, found)  # type: ignore[arg-type]
        monkeypatch.undo()
        monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
        monkeypatch.setattr(grp, "getgrgid", lambda _: group)


@needs_root
def test_in_a_namespace_whoever_is_unknown_is_no_stranger(place: Path):
    """There even / may be such a one's, and nothing could be used."""
    os.chown(place.parent, 12345, -1)
    with pytest.raises(BanyanError, match="belongs to user 12345"):
        ownership.check_above(place)
    script = f"from banyan import ownership; ownership.check_above(ownership.Path({str(place)!r}))"
    words = ["unshare", "-Ur", sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.returncode == 0, done.stderr


# --- The file of profiles ----------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "config.toml"))
    profiles.remember_local("http://127.0.0.1:5100", tmp_path / "credentials")
    return tmp_path / "config.toml"


def test_profiles_that_others_can_write_are_not_believed(config: Path):
    """They could name their own server beside our file of tokens."""
    config.chmod(0o646)
    with pytest.raises(BanyanError, match=r"everybody.*chmod go-w") as refusal:
        profiles.find_access()
    assert refusal.value.word == "usage"
    with pytest.raises(BanyanError, match="everybody"):
        profiles.remember_local("http://127.0.0.1:5100", config)
    config.chmod(0o644)
    assert profiles.load().profiles


@needs_root
def test_nor_are_somebody_elses(config: Path):
    give(config)
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.find_access()


def test_no_profiles_at_all_is_said_by_the_null_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANYAN_CONFIG", os.devnull)
    assert not profiles.load().profiles
