"""Who may be listened to: nobody beyond this machine without TLS, and tokens on no open line."""

import contextlib
import json
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from banyan import profiles
from banyan.addresses import is_loopback
from banyan.client.api import Client
from banyan.client.transport import Transport
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.server import exposure, listening
from tests.harness import Processes, Started

CERTIFICATES = Path(__file__).with_name("certificates")
ANYWHERE = "0.0.0.0"  # noqa: S104 - what this is about
HERE = CERTIFICATES / "here.pem"


def tls(name: str = "here", key: str | None = None) -> exposure.Tls:
    return exposure.Tls(CERTIFICATES / f"{name}.pem", CERTIFICATES / f"{key or name}.key")


def options(name: str = "here") -> list[str]:
    files = tls(name)
    return ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]


@pytest.fixture
def start(processes: Processes, tmp_path: Path, fresh_database: str) -> Callable[..., Started]:
    def started(command: str, *more: str) -> Started:
        own = ["--json", "--data", str(tmp_path / "data"), "--port", "0"]
        environment = {"BANYAN_MONGO_URI": fresh_database}
        return processes.banyan(command, *own, *more, environment=environment)

    return started


@pytest.fixture(autouse=True)
def no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "config.toml"))


# --- Listening --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("[::1]", True),
        ("localhost", True), ("LOCALHOST.", True), ("a.localhost", True),
        ("::ffff:127.0.0.1", True), ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("", False),  # noqa: S104
        ("localhost.example.org", False), ("127.0.0.1.example.org", False), ("2130706433", False),
    ],
)  # fmt: skip
def test_what_is_this_machine_is_told_by_its_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", [ANYWHERE, "::", "10.1.2.3", "head.example.org"])
def test_beyond_this_machine_it_listens_only_with_tls_or_behind_a_proxy(host: str) -> None:
    with pytest.raises(BanyanError, match=r"--tls-cert and --tls-key.*--behind-proxy") as refusal:
        exposure.check(host, None, False)
    assert refusal.value.word == "usage"
    exposure.check(host, tls(), False)
    exposure.check(host, None, True)
    exposure.check("127.0.0.1", None, False)


def test_who_trusts_every_machine_on_the_way_says_so(
    start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANYAN_ALLOW_PLAIN_HTTP", "1")
    assert json.loads(start("server", "--host", ANYWHERE).line(60))["url"].startswith("http://")


def test_the_refusal_comes_before_anything_is_started(
    start: Callable[..., Started], tmp_path: Path
) -> None:
    refused = start("server", "--host", ANYWHERE)
    assert refused.wait(20) == EXIT_USAGE
    assert "tokens would go there readable" in refused.stderr
    assert not (tmp_path / "data" / "credentials").exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (tls("here", "nameless"), "key values mismatch"),
        (tls("nowhere"), "No such file"),
        (exposure.Tls(Path(__file__), Path(__file__)), "cannot be used for TLS"),
    ],
)
def test_a_certificate_that_cannot_be_served_is_told_at_the_start(
    files: exposure.Tls, said: str
) -> None:
    with pytest.raises(BanyanError, match=said):
        exposure.check(ANYWHERE, files, False)


@pytest.mark.parametrize(
    ("name", "said"), [("expired", "has expired"), ("nameless", "names no host")]
)
def test_a_certificate_that_no_client_would_take_is_told_at_the_start(name: str, said: str) -> None:
    with pytest.raises(BanyanError, match=said):
        exposure.names(tls(name))


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    assert exposure.context(tls()).minimum_version is ssl.TLSVersion.TLSv1_2


def test_of_tls_1_2_only_what_keeps_a_talk_secret_for_good_is_spoken() -> None:
    offered = exposure.context(tls()).get_ciphers()
    older = [one["name"] for one in offered if one["protocol"] != "TLSv1.3"]
    assert len(older) >= 4
    assert all(re.fullmatch(r"ECDHE-(ECDSA|RSA)-(AES\d+-GCM|CHACHA20).*", one) for one in older)
    for name, understood in (
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA256", False),
        ("ECDHE-ECDSA-AES256-SHA", False), ("AES128-GCM-SHA256", False),
        ("DHE-RSA-AES128-GCM-SHA256", False), ("AECDH-AES128-SHA", False),
    ):  # fmt: skip
        assert shakes_hands(name) is understood, name


def shakes_hands(cipher: str) -> bool:
    """Whether a client that has only this one gets on with the server."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(HERE)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    far = exposure.context(tls()).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (near, far):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return near.cipher() is not None


@pytest.mark.parametrize(
    ("mode", "fit"),
    [(0o400, True), (0o600, True), (0o640, True), (0o644, False), (0o660, False), (0o666, False),
     (0o602, False), (0o601, False)],
)  # fmt: skip
def test_a_key_that_others_could_have_is_none(tmp_path: Path, mode: int, fit: bool) -> None:
    key = tmp_path / "head.key"
    key.write_bytes((CERTIFICATES / "here.key").read_bytes())
    key.chmod(mode)
    files = exposure.Tls(HERE, key)
    if fit:
        exposure.check(ANYWHERE, files, False)
        return
    with pytest.raises(BanyanError, match=rf"{mode:04o}.*chmod o=,g-w {key}") as refusal:
        exposure.check(ANYWHERE, files, False)
    assert refusal.value.word == "usage"


def test_the_two_files_go_together() -> None:
    assert exposure.pair(None, None) is None
    for one in ((HERE, None), (None, HERE)):
        with pytest.raises(BanyanError, match="go together"):
            exposure.pair(*one)


def test_the_address_is_one_that_the_certificate_is_for() -> None:
    [one] = listening.listen("127.0.0.1", 0, 1)
    port = one.getsockname()[1]
    assert listening.url(ANYWHERE, one, exposure.names(tls())) == f"https://127.0.0.1:{port}"
    assert listening.url("head", one, ["localhost"]) == f"https://localhost:{port}"
    elsewhere = exposure.names(tls("elsewhere"))
    assert elsewhere == ["head.example.org"]  # one for many hosts is the name of none
    assert listening.url(ANYWHERE, one, elsewhere) == f"https://head.example.org:{port}"
    listening.close([one])


# --- A stack with TLS -------------------------------------------------------------------


@pytest.fixture
def secured(start: Callable[..., Started]) -> tuple[str, dict[str, str]]:
    whose = ["--run-as", str(os.geteuid())]
    ready = json.loads(start("up", "--host", ANYWHERE, *whose, *options()).line(60))
    return ready["url"], json.loads(Path(ready["credentials"]).read_text())


def test_a_stack_speaks_tls_and_its_worker_trusts_it(
    secured: tuple[str, dict[str, str]],
    processes: Processes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, tokens = secured
    # By the profile that it has written, and in the task by the task's own environment.
    inside = f"{sys.executable} -m banyan progress 40"
    done = processes.banyan("run", "--", "sh", "-c", f"{inside} && echo told")
    assert done.wait(60) == 0, done.stderr
    assert done.stdout == "told\n"
    invited = processes.banyan("worker", "invite", "rack7", "--address", url)
    assert invited.wait() == 0, invited.stderr
    assert "base64 -d > ~/banyan-ca.pem" in invited.stdout
    line, _token = invited.stdout.splitlines()
    assert line.endswith("--tls-ca ~/banyan-ca.pem")
    shown = processes.banyan("ls", "--curl", "--url", url, "--token", tokens["provider"])
    assert shown.wait() == 0
    assert f"--cacert {HERE}" in shown.stdout
    # Without that profile it is a stranger, and gets no token.
    monkeypatch.setenv("BANYAN_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(BanyanError, match=r"^no trusted connection to .*certificate.*--tls-ca"):
        Client(url, tokens["provider"], retry_seconds=0).workers()
    assert Client(url, tokens["provider"], tls_ca=str(HERE)).workers()
    login = processes.banyan(
        "login", url, "--tls-ca", str(HERE), "--token-file", str(tmp_path / "data" / "credentials"),
        environment={"BANYAN_CONFIG": str(tmp_path / "none.toml")},
    )  # fmt: skip
    assert login.wait() == 0, login.stderr
    assert profiles.find_tls_ca(url) == str(HERE)
    refuses_plain_http(url)


def refuses_plain_http(url: str) -> None:
    host, port = url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in connection.recv(4096)


# --- Clients ----------------------------------------------------------------------------


def test_a_token_is_not_sent_over_an_open_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://10.0.0.1:5100", "http://head.example.org"):
        with pytest.raises(BanyanError, match="BANYAN_ALLOW_PLAIN_HTTP=1") as refusal:
            Transport(url, "token")
        assert refusal.value.word == "usage"
        Transport(url)  # nothing to tell
    Transport("https://head.example.org", "token")
    Transport("http://localhost:5100", "token")


def test_who_trusts_the_line_says_so(processes: Processes) -> None:
    refused = processes.banyan("ls", "--url", "http://192.0.2.1:1", "--token", "t")
    assert refused.wait(20) == EXIT_USAGE
    assert "not encrypted" in refused.stderr
    script = "from banyan.client.transport import Transport; Transport('http://192.0.2.1', 't')"
    allowed = processes.start([sys.executable, "-c", script], {"BANYAN_ALLOW_PLAIN_HTTP": "1"})
    assert allowed.wait(20) == 0, allowed.stderr


def test_a_file_of_trust_that_is_none_is_told() -> None:
    for file in (str(Path(__file__)), "/nowhere.pem"):
        with pytest.raises(BanyanError, match="--tls-ca"):
            Transport("https://localhost", "token", tls_ca=file)


def test_whom_to_trust_is_said_or_in_the_environment_or_in_the_profile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.pem"
    kept.touch()
    profiles.remember_local("https://localhost:1", HERE, str(kept))
    assert profiles.find_tls_ca("https://localhost:1") == str(kept)
    assert profiles.find_tls_ca("https://localhost:2") == ""
    monkeypatch.setenv("BANYAN_TLS_CA", "environment.pem")
    assert profiles.find_tls_ca("https://localhost:1") == "environment.pem"
    assert profiles.find_tls_ca("https://localhost:1", "said.pem") == "said.pem"
