"""Files that a command reads: no pipe, link or device of somebody else's is believed."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from banyan import ownership, profiles
from banyan.cli.connection import read_token_file
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.profiles import Profile
from banyan.worker.secrets_file import SecretMissing, Secrets
from banyan.worker.tokens import read_token
from tests.harness import Processes
from tests.security.others import NOBODY, give
from tests.worker.test_run_as import needs_root

URL = "http://127.0.0.1:1"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where profiles would be, in a home of somebody else's, if it is given away."""
    home = tmp_path / "home"
    (home / ".config" / "banyan").mkdir(parents=True)
    monkeypatch.delenv("BANYAN_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home / ".config" / "banyan" / "config.toml"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A place in which everybody may make what is missing, as /tmp is."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777)
    return place


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    place = tmp_path / "elsewhere"
    place.mkdir(mode=0o700)
    return place


# --- Profiles ------------------------------------------------------------------------------


def profile_for(url: str, credentials: Path) -> str:
    return f'default_profile = "x"\n[profile.x]\nurl = "{url}"\ncredentials = "{credentials}"\n'


@needs_root
def test_a_pipe_in_somebody_elses_home_does_not_say_who_gets_the_token(
    config: Path, elsewhere: Path, processes: Processes
):
    (elsewhere / "credentials").write_text('{"provider": "t", "admin": "t"}')
    os.mkfifo(config)
    for path in (config.parents[2], config.parents[1], config.parent, config):
        give(path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        text = elsewhere / "text"
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        text.write_text(profile_for(url, elsewhere / "credentials"))
        environment = {"HOME": os.environ["HOME"], "XDG_CONFIG_HOME": ""}
        for command in (["ls"], ["account", "list"]):
            processes.start(["sh", "-c", f"exec cat {text} > {config}"])
            run = processes.banyan(*command, environment=environment)
            assert run.wait(30) == EXIT_USAGE
            assert "home belongs to nobody" in run.stderr
        with pytest.raises(BlockingIOError):  # nobody has asked it
            server.accept()


@needs_root
@pytest.mark.parametrize("place", ["shared", "config"])
def test_nor_is_one_waited_for(
    config: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    """Nobody writes into it: who opened it would wait for ever."""
    if place == "shared":
        monkeypatch.setenv("BANYAN_CONFIG", str(shared / "config.toml"))
    os.mkfifo(profiles.path())
    give(profiles.path())
    with pytest.raises(BanyanError, match=r"config\.toml belongs to nobody"):
        profiles.load()


def test_nor_is_one_into_which_everybody_can_write(config: Path):
    os.mkfifo(config)
    config.chmod(0o666)
    with pytest.raises(BanyanError, match="may be written by everybody"):
        profiles.load()


@pytest.mark.parametrize("device", ["/dev/ptmx", "/proc/1"])
def test_nor_devices_nor_directories(monkeypatch: pytest.MonkeyPatch, device: str):
    monkeypatch.setenv("BANYAN_CONFIG", device)
    with pytest.raises(BanyanError, match=device) as refusal:
        profiles.load()
    assert refusal.value.word == "usage"


def piped(text: str) -> int:
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return reading


@pytest.mark.parametrize("way", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_profiles_of_ones_own_may_come_through_a_pipe(
    config: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    reading = piped(profile_for(URL, config))
    monkeypatch.setenv("BANYAN_CONFIG", way.format(reading))
    assert profiles.load().profiles["x"].url == URL
    os.close(reading)
    os.mkfifo(config)
    monkeypatch.setenv("BANYAN_CONFIG", str(config))
    told = profile_for(URL, config)
    writer = threading.Thread(target=config.write_text, args=(told,), daemon=True)
    writer.start()
    assert profiles.load().profiles["x"].url == URL
    writer.join(20)
    assert not writer.is_alive()


@needs_root
def test_but_not_through_somebody_elses(config: Path, monkeypatch: pytest.MonkeyPatch):
    reading = piped(profile_for(URL, config))
    os.fchown(reading, NOBODY, NOBODY)
    monkeypatch.setenv("BANYAN_CONFIG", f"/dev/fd/{reading}")
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.load()
    config.symlink_to(f"/dev/fd/{reading}")
    monkeypatch.delenv("BANYAN_CONFIG")
    with pytest.raises(BanyanError):
        profiles.load()
    os.close(reading)


# --- What a profile names --------------------------------------------------------------------


@needs_root
def test_tokens_of_a_service_are_what_was_looked_at(
    config: Path, services: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    """The service exchanges its file for a link to root's, between our look and our reading."""
    credentials = services / "credentials"
    credentials.write_text('{"provider": "of the service"}')
    (elsewhere / "credentials").write_text('{"provider": "of root"}')
    for path in (services, credentials):
        give(path)
    profiles.remember_login("x", Profile(URL, credentials=str(credentials)))
    assert profiles.find_access().token == "of the service"
    real = ownership.check_file

    def check_file(path: Path) -> None:
        real(path)
        credentials.unlink()
        credentials.symlink_to(elsewhere / "credentials")
        give(credentials)

    monkeypatch.setattr(ownership, "check_file", check_file)
    with pytest.raises(BanyanError, match="belongs to nobody"):
        profiles.find_access()


def test_tokens_are_not_waited_for(config: Path, elsewhere: Path):
    os.mkfifo(elsewhere / "credentials")
    profiles.remember_login("x", Profile(URL, credentials=str(elsewhere / "credentials")))
    with pytest.raises(BanyanError, match="no regular file"):
        profiles.find_access()


# --- Files that an option names ---------------------------------------------------------------


READERS = pytest.mark.parametrize(
    "read", [read_token, lambda path: read_token_file(str(path), "worker")]
)


@needs_root
@READERS
def test_a_token_file_of_somebody_else_leads_to_none_of_ours(
    shared: Path, elsewhere: Path, read: Callable[[Path], str]
):
    """It would be sent to the server that this one serves."""
    (elsewhere / "credentials").write_text('{"worker": "of root"}')
    link, own = shared / "link", shared / "token"
    link.symlink_to(elsewhere / "credentials")
    assert read(link) == "of root", "a link of our own"
    give(link)
    with pytest.raises(BanyanError, match="link belongs to nobody"):
        read(link)
    own.write_text("of nobody")
    (shared / "own link").symlink_to(own)
    for path in (own, shared / "own link"):
        give(path)
        assert read(path) == "of nobody", "what is its own, it may give"


@READERS
def test_a_token_may_come_through_a_pipe(read: Callable[[Path], str]):
    reading = piped("of a pipe")
    assert read(Path(f"/dev/fd/{reading}")) == "of a pipe"
    os.close(reading)


@needs_root
def test_secrets_are_not_what_somebody_elses_link_leads_to(shared: Path, elsewhere: Path):
    (elsewhere / "credentials").write_text('{"admin": "of root"}')
    (elsewhere / "credentials").chmod(0o600)
    (shared / "secrets").symlink_to(elsewhere / "credentials")
    secrets = Secrets(shared / "secrets", {})
    asked = {"A": {"secret": "admin"}}
    assert secrets.resolved(asked) == {"A": "of root"}, "a link of our own"
    give(shared / "secrets")
    with pytest.raises(BanyanError, match="secrets belongs to nobody"):
        secrets.check()
    with pytest.raises(SecretMissing, match="or changed") as problem:
        secrets.resolved(asked)
    assert str(shared) not in str(problem.value)


def test_secrets_that_others_could_exchange_are_none(shared: Path):
    (shared / "secrets").write_text("{}")
    (shared / "secrets").chmod(0o600)
    Secrets(shared / "secrets", {}).check()
    shared.chmod(0o777)
    with pytest.raises(BanyanError, match="may be written by everybody"):
        Secrets(shared / "secrets", {}).check()


def test_secrets_are_not_waited_for(elsewhere: Path):
    """Else the worker would stand still, with its leases."""
    os.mkfifo(elsewhere / "secrets", 0o600)
    with pytest.raises(BanyanError, match="no regular file"):
        Secrets(elsewhere / "secrets", {}).check()


# --- The settings page, which is a program ---------------------------------------------------


def test_a_settings_page_that_others_could_have_written_is_not_run(
    shared: Path, processes: Processes
):
    page = shared / "settings.py"
    page.write_text(f"open({str(shared / 'ran')!r}, 'w')\n")
    page.chmod(0o646)
    told = processes.banyan("up", environment={"BANYAN_SETTINGS": str(page)})
    assert told.wait(30) == EXIT_USAGE
    assert "settings.py may be written by everybody" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (shared / "ran").exists()


@pytest.mark.parametrize("kind", ["directory", "pipe", "nothing"])
def test_one_that_is_no_file_is_told(shared: Path, processes: Processes, kind: str):
    page = shared / "settings.py"
    if kind == "directory":
        page.mkdir()
        (page / "__main__.py").write_text(f"open({str(shared / 'ran')!r}, 'w')\n")
    elif kind == "pipe":
        os.mkfifo(page)
    told = processes.banyan("up", environment={"BANYAN_SETTINGS": str(page)})
    assert told.wait(30) == EXIT_USAGE
    assert f"BANYAN_SETTINGS={page}" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (shared / "ran").exists()
