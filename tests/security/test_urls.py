"""A URL in which two parsers read two hosts: no token is sent there."""

import itertools
from pathlib import Path

import pytest
import requests
from urllib3.util import parse_url

from banyan.addresses import server_url
from banyan.client.transport import Transport
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.worker import identity
from banyan.worker.options import Options
from tests.client.scripted import ok, scripted_server
from tests.harness import Processes, Server

TWOFOLD = [
    "http://evil.example:1\\@127.0.0.1",
    "http://evil.example\\@localhost:5100/",
    "http://evil.example:1@127.0.0.1",
    "http://127.0.0.1:1@evil.example",
    "http://u:password@127.0.0.1:1",
    "https://token@head:5100",
    "http://evil.example\\.localhost",
    "http://evil.example%2f.localhost",
    "http://evil.example#.localhost",
    "http://evil.example?.localhost",
    "http://evil.example;.localhost",
    "http://evil.example .localhost",
    "http://\t127.0.0.1",
    "http://127.0.0.1\n",
    " http://127.0.0.1",
    "http:\\\\127.0.0.1",
    "http:/127.0.0.1",
    "http:///127.0.0.1",
    "http://[::1]evil.example",
    "http://[::1].evil.example",
    "http://evil.example[::1]",
    "http://\uff11\uff12\uff17.0.0.1",  # digits, but not those of ASCII
    "http://\u24dbocalhost",
    "http://localhost:5100:80",
    "http://localhost:+80",
    "ftp://localhost",
    "localhost:5100",
    "http://",
    "",
]
PLAIN = {
    "http://127.0.0.1:5100": ("http", "127.0.0.1"),
    "http://localhost:5100/": ("http", "localhost"),
    "https://Head.Example.org": ("https", "head.example.org"),
    "HTTPS://head:5100": ("https", "head"),
    "http://[::1]:5100": ("http", "::1"),
    "https://[fe80::1%25eth0]:5100": ("https", "fe80::1%25eth0"),
    "https://front.example/banyan/v1": ("https", "front.example"),
    "https://xn--bcher-kva.example:443": ("https", "xn--bcher-kva.example"),
}


@pytest.mark.parametrize("url", TWOFOLD)
def test_what_can_be_read_in_two_ways_gets_no_token(url: str) -> None:
    with pytest.raises(BanyanError, match="http://HOST:PORT") as refusal:
        Transport(url, "secret")
    assert refusal.value.word == "usage"
    assert "password" not in refusal.value.message


@pytest.mark.parametrize("url", PLAIN)
def test_usual_ones_are_taken(url: str) -> None:
    assert tuple(server_url(url)) == PLAIN[url]
    Transport(url)


def test_what_is_taken_is_read_alike_by_all() -> None:
    """Of all short rows of these pieces: what we take, requests would send to the host we saw."""
    pieces = ("evil.example", "127.0.0.1", "[::1]", ":80", "@", "\\", "/", "?", "#", "%", " ", ".")
    taken = 0
    for row in itertools.product(pieces, repeat=4):
        url = f"http://{''.join(row)}"
        try:
            host = server_url(url).host
        except BanyanError:
            continue
        taken += 1
        try:
            sent = requests.Request("GET", f"{url.rstrip('/')}/tasks").prepare().url or ""
        except requests.RequestException:  # nothing is sent
            continue
        assert (parse_url(sent).host or "").strip("[]") == host, url
    assert taken > 100


def test_root_is_not_told_that_it_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    options = Options(url="http://evil.example:1\\@127.0.0.1", token_file=tmp_path / "token")
    with pytest.raises(BanyanError, match="http://HOST:PORT"):
        identity.check(options)


def test_the_command_line_sends_nothing(processes: Processes, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    with scripted_server() as evil:
        evil.replies = [ok({"_items": [], "_meta": {"page": 1, "max_results": 25}})]
        url = f"{evil.url}\\@127.0.0.1"
        for line in (
            ["ls", "--url", url, "--token", "secret"],
            ["login", url, "--token-file", str(token)],
            ["worker", "--url", url, "--token-file", str(token), "--run-as", "root"],
        ):
            ended = processes.banyan(*line)
            assert ended.wait(30) == EXIT_USAGE, line
            assert "http://HOST:PORT" in ended.stderr
        assert evil.asked == []


def test_no_account_is_made_for_such_an_address(server: Server, processes: Processes) -> None:
    admin = {"BANYAN_URL": server.url, "BANYAN_TOKEN": server.admin.token}
    line = ["worker", "invite", "rack7", "--address", "https://evil.example\\@head:5100"]
    ended = processes.banyan(*line, environment=admin)
    assert ended.wait(30) == EXIT_USAGE
    accounts = server.admin.get("accounts", max_results=1000).json()["_items"]
    assert "rack7" not in [one["name"] for one in accounts]
