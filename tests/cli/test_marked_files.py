"""Files that people write, with the byte order mark that editors of Windows put before them."""

import codecs
import json
from pathlib import Path

import pytest

from banyan import profiles
from banyan.cli.connection import read_token_file
from banyan.worker.secrets_file import Secrets
from banyan.worker.standalone.taskfile import read_tasks
from banyan.worker.tokens import read_token


def written(path: Path, text: str) -> Path:
    path.write_bytes(codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("text", ["abc\n", '{"worker": "abc"}\n'])
def test_a_token(tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "token", text)
    assert read_token(file) == "abc"
    assert read_token_file(str(file), "worker") == "abc"


def test_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = written(tmp_path / "credentials", json.dumps({"provider": "abc"}))
    profile = f'[profile.lab]\nurl = "http://lab:5100"\ncredentials = "{credentials}"\n'
    file = written(tmp_path / "config.toml", f'default_profile = "lab"\n{profile}')
    monkeypatch.setenv("BANYAN_CONFIG", str(file))
    stored = profiles.load()
    assert (stored.default, stored.profiles["lab"].url) == ("lab", "http://lab:5100")


def test_secrets(tmp_path: Path) -> None:
    file = written(tmp_path / "secrets", '{"key": "value"}\n')
    assert Secrets(file).resolved({"K": {"secret": "key"}}) == {"K": "value"}


def test_tasks(tmp_path: Path) -> None:
    file = written(tmp_path / "tasks", '{"command": "true"}\n{"command": "false"}\n')
    assert [task["command"] for task in read_tasks(file)] == ["true", "false"]
