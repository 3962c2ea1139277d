"""Where the server and the token come from, and that no token goes to another server."""

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan import profiles
from banyan.errors import BanyanError
from banyan.profiles import Access, Credentials, Profile, Profiles, find_access

TOKENS = {"admin": "tok-a", "provider": "tok-p", "worker": "tok-w"}


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("URL", "TOKEN", "PROFILE", "TASK_TOKEN", "TASK_ID"):
        monkeypatch.delenv(f"BANYAN_{name}", raising=False)
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "etc" / "config.toml"))
    return tmp_path / "etc" / "config.toml"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.write_text(json.dumps(TOKENS))
    return path


def test_nothing_known_names_the_next_step() -> None:
    with pytest.raises(BanyanError, match="banyan up") as caught:
        find_access()
    assert caught.value.word == "usage"


def test_a_local_profile_gives_each_role_its_token(credentials: Path) -> None:
    profiles.remember_local("http://127.0.0.1:5100", credentials)
    assert find_access() == Access("http://127.0.0.1:5100", "tok-p")
    assert find_access("admin").token == "tok-a"
    assert find_access("worker").token == "tok-w"
    with pytest.raises(BanyanError, match="role operator") as caught:
        find_access("operator")
    assert caught.value.word == "unauthenticated"


def test_the_file_is_its_users_own(config: Path, credentials: Path) -> None:
    profiles.remember_local("http://127.0.0.1:1", credentials)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    config.chmod(0o644)
    profiles.remember_local("http://127.0.0.1:1", credentials)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_what_is_said_beats_the_environment_beats_the_profile(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles.remember_local("http://local", credentials)
    monkeypatch.setenv("BANYAN_URL", "http://environment")
    monkeypatch.setenv("BANYAN_TOKEN", "tok-e")
    assert find_access() == Access("http://environment", "tok-e")
    assert find_access(url="http://said") == Access("http://said", "tok-e")
    assert find_access(url="http://said", token="tok-s") == Access("http://said", "tok-s")
    assert find_access(profile="local") == Access("http://local", "tok-p")


def test_a_profiles_token_never_goes_to_another_server(credentials: Path) -> None:
    profiles.remember_local("http://local", credentials)
    assert find_access(url="http://local/").token == "tok-p"
    with pytest.raises(BanyanError, match="http://elsewhere") as caught:
        find_access(url="http://elsewhere")
    assert caught.value.word == "unauthenticated"


def test_a_default_that_was_chosen_stays(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles.remember_login("cluster", Profile("http://cluster", token="tok-c"))
    profiles.remember_local("http://local", credentials)
    assert find_access() == Access("http://cluster", "tok-c")
    monkeypatch.setenv("BANYAN_PROFILE", "local")
    assert find_access() == Access("http://local", "tok-p")
    monkeypatch.setenv("BANYAN_URL", "http://cluster")
    with pytest.raises(BanyanError):
        find_access()


def test_an_unknown_profile_is_told_with_the_known_ones(credentials: Path) -> None:
    profiles.remember_local("http://local", credentials)
    with pytest.raises(BanyanError, match="known: local"):
        find_access(profile="loacl")


@pytest.mark.parametrize(
    "text", ["[profile.x]\n", "[profile.x]\nurl = 'u'\ncolour = 'red'\n", "profile = 3\n", "\x00"]
)
def test_a_file_that_makes_no_sense_is_named(config: Path, text: str) -> None:
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(BanyanError, match=r"config\.toml"):
        profiles.load()


def test_credentials_that_are_gone_name_the_file(credentials: Path) -> None:
    profiles.remember_local("http://local", credentials)
    credentials.unlink()
    with pytest.raises(BanyanError, match="credentials") as caught:
        find_access()
    assert caught.value.word == "unauthenticated"


def test_a_worker_needs_a_file(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BanyanError, match="--token-file"):
        profiles.find_credentials()
    profiles.remember_local("http://local", credentials)
    assert profiles.find_credentials() == Credentials("http://local", credentials)
    said = profiles.find_credentials("http://x", Path("f"))
    assert said == Credentials("http://x", Path("f"))
    monkeypatch.setenv("BANYAN_URL", "http://elsewhere")
    with pytest.raises(BanyanError):
        profiles.find_credentials()


def test_the_socket_of_a_profile_goes_wherever_its_token_does(
    monkeypatch: pytest.MonkeyPatch, credentials: Path
) -> None:
    profiles.remember_local("http://127.0.0.1:1", credentials, socket="/d/s")
    assert find_access() == Access("http://127.0.0.1:1", "tok-p", "/d/s")
    assert find_access(token="tok-s") == Access("http://127.0.0.1:1", "tok-s", "/d/s")
    assert find_access(url="unix:///d/s") == Access("http://127.0.0.1:1", "tok-p", "/d/s")
    assert profiles.find_credentials().socket == "/d/s"
    monkeypatch.setenv("BANYAN_URL", "http://127.0.0.1:1")
    assert find_access().socket == "/d/s"
    monkeypatch.setenv("BANYAN_TOKEN", "tok-e")  # both by hand: as they were given
    assert find_access() == Access("http://127.0.0.1:1", "tok-e")
    monkeypatch.delenv("BANYAN_TOKEN")
    with pytest.raises(BanyanError, match="no token for"):
        find_access(url="unix:///d/other")


def test_a_link_to_the_file_stays_a_link(config: Path, tmp_path: Path, credentials: Path) -> None:
    config.parent.mkdir()
    config.symlink_to(tmp_path / "dotfiles.toml")
    profiles.remember_local("http://local", credentials)
    assert config.is_symlink()
    assert "http://local" in (tmp_path / "dotfiles.toml").read_text()


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


MADE = st.builds(Profile, url=TEXTS, credentials=TEXTS, token=TEXTS, socket=TEXTS)


@given(st.dictionaries(NAMES, MADE), NAMES)
def test_whatever_is_written_is_read_back(known: dict[str, Profile], default: str) -> None:
    written = Profiles(known, default)
    profiles.save(written)
    with Path(os.environ["BANYAN_CONFIG"]).open("rb") as file:
        tomllib.load(file)
    assert profiles.load() == written


def test_a_running_task_uses_its_own_token_for_its_own_server(
    monkeypatch: pytest.MonkeyPatch, credentials: Path
) -> None:
    profiles.remember_local("http://127.0.0.1:1", credentials)
    monkeypatch.setenv("BANYAN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BANYAN_TASK_TOKEN", "tok-t")
    assert find_access() == Access("http://127.0.0.1:1", "tok-t")
    monkeypatch.setenv("BANYAN_SOCKET", "/d/s")
    assert find_access() == Access("http://127.0.0.1:1", "tok-t", "/d/s")
    assert find_access(profile="local").token == "tok-p"
    monkeypatch.setenv("BANYAN_TOKEN", "tok-e")
    assert find_access().token == "tok-e"
    monkeypatch.delenv("BANYAN_TOKEN")
    with pytest.raises(BanyanError, match="no token for"):
        find_access(url="http://127.0.0.1:2")
    monkeypatch.setenv("BANYAN_PROFILE", "local")
    assert find_access().token == "tok-p"


def test_what_a_task_says_of_itself_goes_with_its_token_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BANYAN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BANYAN_TOKEN", "tok-e")
    with pytest.raises(BanyanError, match="inside a running task"):
        find_access(profiles.TASK)
    monkeypatch.setenv("BANYAN_TASK_ID", "x")
    monkeypatch.setenv("BANYAN_TASK_TOKEN", "tok-t")
    assert find_access(profiles.TASK) == Access("http://127.0.0.1:1", "tok-t")
    monkeypatch.setenv("BANYAN_SOCKET", "/d/s")
    assert find_access(profiles.TASK).socket == "/d/s"


@pytest.mark.parametrize("home", ["", "somewhere"])
def test_a_home_that_is_no_place_is_none(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.delenv("BANYAN_CONFIG", raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert profiles.path().is_absolute()
