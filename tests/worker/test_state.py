"""Tokens, state directories, and the socket in them."""

from pathlib import Path

import pytest

from banyan.errors import BanyanError
from banyan.worker import wire
from banyan.worker.state import Identity, StateDirectory, open_state
from banyan.worker.tokens import read_token


def test_a_token_is_read_from_either_kind_of_file(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert read_token(file) == "abc"
    file.write_text('{"admin": "x", "worker": "def"}')
    assert read_token(file) == "def"


@pytest.mark.parametrize("text", ["", "{", '{"admin": "x"}'])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(BanyanError):
        read_token(file)


def test_a_state_directory_is_for_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = StateDirectory(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    with pytest.raises(BanyanError) as refused:
        StateDirectory(tmp_path / "state")
    assert refused.value.word == "data_directory_in_use"
    first.close()
    StateDirectory(tmp_path / "state").close()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    places = [open_state(None, "http://host:5100") for _ in range(2)]
    assert [place.path.name for place in places] == ["host-5100-0", "host-5100-1"]
    for place in places:
        place.close()


def test_where_no_directory_can_be_made_another_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    with pytest.raises(BanyanError, match=r"/proc/nowhere.*--state-directory") as refused:
        open_state(None, "http://host:5100")
    assert refused.value.word == "usage"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as `docker run --user 54321`
    with pytest.raises(BanyanError, match=r"no home directory.*--state-directory"):
        open_state(None, "http://host:5100")


def test_a_socket_may_lie_deeper_than_a_socket_s_name_is_long(tmp_path: Path):
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    listener = wire.listen(deep / "socket")
    line = wire.connect(deep / "socket")
    line.close()
    listener.close()
    with pytest.raises(wire.Gone):
        wire.connect(deep / "socket")


def test_half_of_an_identity_goes_with_the_whole(tmp_path: Path):
    """The disk was full, or the agent was killed, while it was written."""
    state = StateDirectory(tmp_path)
    state.keep_identity(Identity("a", 60))
    (tmp_path / "worker.json.new").touch()
    state.forget_identity()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["lock"]
    state.close()
