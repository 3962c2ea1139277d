"""What the Tab key offers, asked in this process; the server is a real one."""

import socket
import time

import pytest
from click.shell_completion import ShellComplete

from banyan.cli import completing
from banyan.cli.main import banyan
from banyan.client.api import Client
from tests.contract.playing import Player
from tests.harness import Server


def offered(line: str) -> list[str]:
    """What the Tab key offers at the end of a line."""
    *words, begun = line.split(" ")
    shell = ShellComplete(banyan, {}, "banyan", "_BANYAN_COMPLETE")
    return [one.value for one in shell.get_completions(words, begun)]


def test_it_offers_what_the_server_has(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [{"name": "tab-1", "queue": "tabs"}, {"name": "tab 2"}, {"name": "tab-3"}]
    player = Player(server.worker, "tabs", host="rack7")
    with Client(server.url, server.tokens["provider"]) as client:
        held, spaced, cancelled = (one["_id"] for one in client.submit(tasks, hold=True))
        client.cancel([cancelled])
    monkeypatch.setenv("BANYAN_URL", server.url)
    monkeypatch.setenv("BANYAN_TOKEN", server.tokens["provider"])
    monkeypatch.setattr(completing, "PATIENCE_SECONDS", 30.0)
    assert offered("show la") == ["last"]
    assert offered("show ")[:4] == ["last", cancelled, spaced, held]
    assert held in offered(f"log {held[:20]}")
    assert set(offered("release ")) >= {held, spaced}
    assert cancelled not in offered("release ")
    assert cancelled in offered("retry ")
    assert held not in offered("retry ")
    assert held in offered("submit --after ")
    assert {"@tab-1", "@tab-3"} <= set(offered("ls @tab")) <= {"@tab-1", "@tab-3"}
    assert offered("ls --queue ta") == ["tabs"]
    assert offered("worker drain r") == ["rack7"]
    assert offered("worker drain ") == ["rack7", player.id]
    assert offered("show zz") == []
    assert offered("show --token wrong 6") == []


def test_it_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer, one that is not there, and no server known at all."""
    monkeypatch.delenv("BANYAN_URL", raising=False)
    assert offered("show --profile nobody ") == ["last"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        assert offered(f"show --url {url} --token x ") == ["last"]
        assert time.monotonic() - begun < 10 * completing.PATIENCE_SECONDS
    assert offered(f"show --url {url} --token x ") == ["last"]
    assert offered("ls --profile nobody --queue d") == []
