"""A place that is gone, or not there yet: whoever makes it first is not believed."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from banyan import ownership, profiles
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.profiles import Profile
from banyan.server import own_certificate
from banyan.server.directory import DirectoryLock
from banyan.worker.state import open_state
from tests.harness import Processes
from tests.security.others import give, give_away
from tests.worker.test_run_as import needs_root

URL = "https://127.0.0.1:1"


# --- Made between our look and our making -------------------------------------------------


def use_as_data(directory: Path) -> None:
    with DirectoryLock(directory):
        pass


def use_as_state(directory: Path) -> None:
    open_state(directory, "http://127.0.0.1:1").close()


def use_for_profiles(directory: Path) -> None:
    os.environ["BANYAN_CONFIG"] = str(directory / "config.toml")
    profiles.remember_login("x", Profile("http://127.0.0.1:1", token="t"))


USES = pytest.mark.parametrize("use", [use_as_data, use_as_state, use_for_profiles])


@pytest.fixture
def sticky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place in which everybody may make what is missing, as /tmp is."""
    monkeypatch.setenv("BANYAN_CONFIG", "")
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    return tmp_path / "sticky"


def win_the_race(monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]) -> None:
    """Somebody else makes the missing `a` just before we would."""
    real = Path.mkdir

    def mkdir(self: Path, *arguments: int, **more: bool) -> None:
        if self.name == "a" and not os.path.lexists(self):
            make(self)
        real(self, *arguments, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)


@USES
@needs_root
@pytest.mark.parametrize("below", ["data", "b/data"])
def test_a_directory_above_that_somebody_else_made_first_is_not_used(
    sticky: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], None], below: str
):
    def make(place: Path) -> None:
        os.mkdir(place)
        give(place)

    win_the_race(monkeypatch, make)
    with pytest.raises(BanyanError, match="a belongs to nobody") as refusal:
        use(sticky / "a" / below)
    assert refusal.value.word == "usage"
    assert list((sticky / "a").iterdir()) == []


@USES
@needs_root
def test_nor_a_link_that_somebody_else_made_first(
    sticky: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], None]
):
    elsewhere = sticky.with_name("elsewhere")
    elsewhere.mkdir()

    def make(place: Path) -> None:
        place.symlink_to(elsewhere)
        give(place)

    win_the_race(monkeypatch, make)
    with pytest.raises(BanyanError, match="a belongs to nobody"):
        use(sticky / "a" / "data")
    assert list(elsewhere.iterdir()) == []


@USES
def test_what_is_missing_is_made_for_us_alone(sticky: Path, use: Callable[[Path], None]):
    before = os.umask(0)
    try:
        use(sticky / "a" / "b" / "data")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((sticky / name).stat().st_mode) for name in ("a", "a/b", "a/b/data")]
    assert modes == [0o755, 0o755, 0o700]


def test_a_link_to_itself_is_told(sticky: Path):
    (sticky / "loop").symlink_to("loop")
    with pytest.raises(BanyanError, match="cannot be used"):
        use_as_data(sticky / "loop" / "data")
    with pytest.raises(OSError, match="symbolic links"):
        ownership.check_above(sticky / "loop")


# --- What a profile names ------------------------------------------------------------------


def remember(place: Path) -> None:
    (place / "credentials").write_text('{"provider": "t", "worker": "t"}')
    (place / "ca.pem").touch()
    profiles.remember_local(URL, place / "credentials", str(place / "ca.pem"))


ASKED = [
    profiles.find_access,
    profiles.find_credentials,
    lambda: profiles.find_tls_ca(URL),
]


@pytest.fixture
def kept(sticky: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place of a server that a profile names, in one where it can be made again."""
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "config.toml"))
    (sticky / "data").mkdir()
    remember(sticky / "data")
    return sticky / "data"


@needs_root
@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("gone", ["", "credentials ca.pem"])
def test_what_somebody_else_has_put_in_its_place_is_not_believed(
    kept: Path, ask: Callable[[], object], gone: str
):
    ask()
    for path in [kept / name for name in gone.split()] or [kept]:
        give_away(path)
    with pytest.raises(BanyanError, match="belongs to nobody") as refusal:
        ask()
    assert refusal.value.word == "usage"


@pytest.mark.parametrize("ask", ASKED)
def test_nor_what_anybody_can_write(kept: Path, ask: Callable[[], object]):
    for name in ("credentials", "ca.pem"):
        (kept / name).chmod(0o646)
    with pytest.raises(BanyanError, match="may be written by everybody"):
        ask()


@needs_root
def test_the_worker_of_root_does_not_start_by_it(kept: Path, processes: Processes):
    give_away(kept)
    worker = processes.banyan("worker", environment={"BANYAN_CONFIG": str(profiles.path())})
    assert worker.wait(30) == EXIT_USAGE
    assert "belongs to nobody" in worker.stderr
    login = processes.banyan("ls", environment={"BANYAN_CONFIG": str(profiles.path())})
    assert login.wait(30) == EXIT_USAGE


@needs_root
@pytest.mark.parametrize("ask", ASKED)
def test_root_believes_a_service_in_a_place_of_its_own(
    kept: Path, services: Path, ask: Callable[[], object]
):
    remember(services)
    give_away(services)
    ask()
    (services / "above").mkdir()
    for name in ("credentials", "ca.pem"):
        (services / name).rename(services / "above" / name)
        (services / name).symlink_to(services / "above" / name)
    give_away(services)
    ask()
    (services / "above").chmod(0o1777)
    with pytest.raises(BanyanError, match="belongs to nobody"):
        ask()


@needs_root
def test_a_file_that_is_not_believed_is_not_remembered(kept: Path):
    give_away(kept)
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.remember_login("x", Profile(URL, credentials=str(kept / "credentials")))
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.remember_login("x", Profile(URL, token="t", tls_ca=str(kept / "ca.pem")))
    assert "x" not in profiles.load().profiles


@needs_root
def test_profiles_in_somebody_elses_directory_are_not_believed(
    kept: Path, monkeypatch: pytest.MonkeyPatch
):
    """They could lead it to another file of ours."""
    os.rename(profiles.path(), kept / "config.toml")
    monkeypatch.setenv("BANYAN_CONFIG", str(kept / "config.toml"))
    give(kept)
    with pytest.raises(BanyanError, match="data belongs to nobody"):
        profiles.load()


@needs_root
def test_keys_of_tls_in_somebody_elses_directory_are_not_used(tmp_path: Path):
    own_certificate.ensure(tmp_path, "127.0.0.1")
    give(tmp_path / "tls")
    with pytest.raises(BanyanError, match="tls belongs to nobody"):
        own_certificate.ensure(tmp_path, "127.0.0.1")


# --- Where profiles are written -----------------------------------------------------------


@pytest.fixture
def home(sticky: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of profiles in somebody's home, and beside it `elsewhere`, which is ours."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(sticky / "home"))
    sticky.with_name("elsewhere").mkdir(mode=0o700)
    (sticky / "home" / "banyan").mkdir(parents=True)
    return sticky / "home"


LOGIN = Profile("http://127.0.0.1:1", token="t")


@needs_root
@pytest.mark.parametrize("link", ["home/banyan/config.toml", "home/banyan", "home"])
@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_link_of_somebody_else_is_not_written_through(home: Path, link: str, below: str):
    """It dangles: there is nothing yet at its end whose owner could be asked."""
    planted, elsewhere = home.parent / link, home.parent.with_name("elsewhere")
    if planted.is_dir():
        shutil.rmtree(planted)
    planted.symlink_to(elsewhere / below / "made")
    give(planted)
    with pytest.raises(BanyanError, match=f"{planted.name} belongs to nobody"):
        profiles.remember_login("x", LOGIN)
    give_away(home)
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.remember_login("x", LOGIN)
    assert list(elsewhere.iterdir()) == []


@needs_root
def test_nor_one_that_somebody_puts_there_meanwhile(sticky: Path, monkeypatch: pytest.MonkeyPatch):
    elsewhere = sticky.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    monkeypatch.setenv("BANYAN_CONFIG", str(sticky / "config.toml"))
    real = ownership.make

    def make(directory: Path, mode: int = 0o700) -> None:
        real(directory, mode)
        if not os.path.lexists(sticky / "config.toml"):
            (sticky / "config.toml").symlink_to(elsewhere / "made")
            give(sticky / "config.toml")

    monkeypatch.setattr(ownership, "make", make)
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.remember_login("x", LOGIN)
    assert list(elsewhere.iterdir()) == []


def test_links_of_ours_stay_and_are_written_through(home: Path):
    elsewhere = home.parent.with_name("elsewhere")
    (home / "banyan" / "config.toml").symlink_to("../dotfiles")
    (home / "dotfiles").symlink_to(elsewhere / "deeper" / "made")
    profiles.remember_login("x", LOGIN)
    assert (elsewhere / "deeper" / "made").stat().st_mode & 0o777 == 0o600
    assert profiles.load().profiles["x"] == LOGIN
    assert (home / "banyan" / "config.toml").is_symlink()


def test_links_that_lead_in_a_circle_are_told(home: Path):
    (home / "banyan" / "config.toml").symlink_to("config.toml")
    with pytest.raises(BanyanError, match="cannot be read"):
        profiles.remember_login("x", LOGIN)
    with pytest.raises(OSError, match="symbolic links"):
        ownership.place_of(home / "banyan" / "config.toml")
