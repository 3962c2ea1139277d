"""What `banyan up` hands on to its worker, which reads the same words."""

from pathlib import Path
from typing import Any

import pytest

from banyan.cli.start import up_command
from banyan.cli.worker import worker_command
from banyan.domain.units import parse_bytes
from banyan.server import supervisor
from banyan.worker import agent


@pytest.mark.parametrize("size", ["512 KiB", "524288 B", "1.5GiB", "2000000", "0 B", "8G"])
def test_its_worker_takes_each_size_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(supervisor, "run", seen.append)
    monkeypatch.setattr(agent, "main", seen.append)
    given = ["--memory", size, "--disk", size, "--reserve-memory", size]
    up_command.main([*given, "--data", str(tmp_path)], standalone_mode=False)
    token = tmp_path / "token"
    token.touch()
    server = ["--url", "http://127.0.0.1:5100", "--token-file", str(token)]
    worker_command.main([*server, *seen[0].worker_options], standalone_mode=False)
    options = seen[1]
    found = {options.memory_bytes, options.disk_bytes, options.reserve_memory_bytes}
    assert found == {parse_bytes(int(size) if size.isdecimal() else size)}
