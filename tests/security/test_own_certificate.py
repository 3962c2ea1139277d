"""`--tls auto`: the server makes its certificate, clients pin it, and nobody else has one."""

import os
import shlex
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from banyan import profiles
from banyan.client import trust
from banyan.client.api import Client
from banyan.errors import EXIT_USAGE, BanyanError
from banyan.server import exposure, listening, own_certificate
from tests.e2e.stack import Stack
from tests.harness import Processes, eventually
from tests.harness.forks import in_fork
from tests.worker.test_run_as import needs_root

ANYWHERE = "0.0.0.0"  # noqa: S104 - what this is about


def shakes_hands(server: exposure.Tls, pin: Path, name: str) -> None:
    """A handshake in memory. Errors: ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = trust.context_of(str(pin)).wrap_bio(to_client, to_server, server_hostname=name)
    far = exposure.context(server).wrap_bio(to_server, to_client, server_side=True)
    for end in (near, far, near, far, near):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue


# --- What is made -----------------------------------------------------------------------


def test_its_files_are_the_servers_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = own_certificate.ensure(tmp_path, "127.0.0.1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    files = list((tmp_path / "tls").iterdir())
    assert {file.name for file in files} == {"key.pem", "ca.pem", "server.pem"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert b"PRIVATE" not in made.certificate.read_bytes() + made.trusted.read_bytes()


def test_it_is_for_every_name_and_address_of_this_machine(tmp_path: Path) -> None:
    made = own_certificate.ensure(tmp_path, ANYWHERE)
    for name in ("localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()):
        shakes_hands(made, made.trusted, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shakes_hands(made, made.trusted, "head.example.org")
    [one] = listening.listen("127.0.0.1", 0, 1)
    port = one.getsockname()[1]
    for host, url in ((ANYWHERE, "https://127.0.0.1"), ("::", "https://[::1]")):
        assert listening.url(host, one, exposure.names(made)) == f"{url}:{port}"
    listening.close([one])


def test_what_clients_have_pinned_outlives_a_change_of_names(tmp_path: Path) -> None:
    first = own_certificate.ensure(tmp_path, "127.0.0.1")
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(first.trusted.read_bytes())
    second = own_certificate.ensure(tmp_path, "head.example.org")
    shakes_hands(second, pinned, "head.example.org")
    other = own_certificate.ensure(_made(tmp_path / "other"), "head.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        shakes_hands(other, pinned, "head.example.org")


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tls: (tls / "key.pem").chmod(0o640), "others may have read it"),
        (lambda tls: (tls / "key.pem").write_text("nonsense"), "key.pem"),
        (lambda tls: (tls / "ca.pem").write_text("nonsense"), "ca.pem"),
        (lambda tls: (tls / "key.pem").unlink(), "for another key"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_replaced(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    own_certificate.ensure(tmp_path, "127.0.0.1")
    spoil(tmp_path / "tls")
    with pytest.raises(BanyanError, match=said) as refusal:
        own_certificate.ensure(tmp_path, "127.0.0.1")
    assert refusal.value.word == "usage"
    assert f"remove {tmp_path / 'tls'}" in refusal.value.message


def test_its_end_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own_certificate.ensure(_made(tmp_path / "fresh"), "127.0.0.1")
    assert not caplog.records
    monkeypatch.setattr(own_certificate, "_LASTS", timedelta(days=100))
    own_certificate.ensure(_made(tmp_path / "old"), "127.0.0.1")
    own_certificate.ensure(tmp_path / "old", "127.0.0.1")
    assert "it expires on" in caplog.text
    monkeypatch.setattr(own_certificate, "_LASTS", timedelta(hours=-1))
    own_certificate.ensure(_made(tmp_path / "dead"), "127.0.0.1")
    with pytest.raises(BanyanError, match="it has expired on"):
        own_certificate.ensure(tmp_path / "dead", "127.0.0.1")


def test_who_brings_a_certificate_has_none_made(processes: Processes, tmp_path: Path) -> None:
    files = own_certificate.ensure(tmp_path, "127.0.0.1")
    given = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    refused = processes.banyan("up", "--tls", "auto", *given, "--data", str(tmp_path / "data"))
    assert refused.wait(20) == EXIT_USAGE
    assert "leave --tls-cert and --tls-key" in refused.stderr


# --- A stack with it --------------------------------------------------------------------


@pytest.fixture(params=["127.0.0.1", ANYWHERE])
def stack(request: pytest.FixtureRequest, processes: Processes, tmp_path: Path) -> Stack:
    whose = ["--run-as", str(os.geteuid())]
    return Stack(
        processes, tmp_path, "--tls", "auto", "--host", request.param, "--cores", "1", *whose
    )


def invited(stack: Stack, directory: Path) -> list[str]:
    """Carries out what an invitation says but for its last word; that one."""
    here = ["--address", stack.url] if "127.0.0.1" in stack.options else []
    line, token = stack.text("worker", "invite", "rack7", *here).splitlines()
    prepare, start = line.rsplit(" && ", 1)
    home = {"HOME": str(directory)}
    stack.processes.start(["sh", "-c", f"echo {token} | {prepare}"], home).wait()
    words = shlex.split(start)
    assert words[:2] == ["banyan", "worker"]
    return [word.replace("~", str(directory)) for word in words[1:]]


def _is_not_for_nobody(stack: Stack) -> None:
    line = ("worker", "invite", "rack8", "--address", "https://nobody.example:5100")
    refused = stack.call(*line, code=2).stderr.decode()
    assert "the server's certificate is not for nobody.example" in refused
    assert "rack8" not in stack.text("account", "list")


def test_clients_and_invited_workers_trust_it_and_nobody_else(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.url.startswith("https://127.0.0.1:")
    monkeypatch.setenv("BANYAN_CONFIG", stack.environment["BANYAN_CONFIG"])
    pin = profiles.find_tls_ca(stack.url)
    assert pin == str(stack.data / "tls" / "ca.pem")
    token = profiles.find_access().token
    with Client(stack.url, token, tls_ca=pin) as client:  # by TCP
        assert len(client.workers()) == 1
    with pytest.raises(BanyanError, match="certificate"):
        Client(stack.url, token, tls_ca=str(_another(tmp_path).trusted), retry_seconds=0).workers()
    # A task tells by TLS, and a second worker comes by it.
    words = invited(stack, _made(tmp_path / "rack7"))
    assert ANYWHERE not in stack.options or "https://127." not in words[2], "as seen elsewhere"
    words[2] = stack.url  # where somebody else's server is to be met later
    _is_not_for_nobody(stack)
    own = [
        "--queue",
        "rack7",
        "--state-directory",
        str(tmp_path / "state"),
        "--run-as",
        str(os.geteuid()),
    ]
    elsewhere = {"BANYAN_CONFIG": str(tmp_path / "none.toml")}
    worker = stack.processes.banyan(*words, *own, environment=elsewhere)
    told = stack.text(
        *("run", "--queue", "rack7", "--", "sh", "-c"),
        'banyan progress 1 && curl -fsS --cacert "$BANYAN_TLS_CA" $BANYAN_URL/healthz',
    )
    assert "OK" in told
    # Somebody else takes the port while the server is away.
    stack.started.terminate()
    with impostor(stack.url, _another(tmp_path)) as (heard, refused):
        eventually(lambda: len(refused) >= 3, 30)
    assert heard == []
    worker.terminate()


def _another(tmp_path: Path) -> exposure.Tls:
    directory = tmp_path / "another"
    directory.mkdir(exist_ok=True)
    return own_certificate.ensure(directory, ANYWHERE)


@contextmanager
def impostor(url: str, tls: exposure.Tls) -> Iterator[tuple[list[str], list[OSError]]]:
    """Somebody else's server at the same address; what it hears, and who does not trust it."""
    heard: list[str] = []
    refused: list[OSError] = []

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            heard.append(f"{self.command} {self.path}\n{self.headers}")
            self.send_error(500)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    class Port(ThreadingHTTPServer):
        allow_reuse_address = True

        def get_request(self) -> tuple[Any, Any]:
            try:
                return super().get_request()
            except OSError as problem:
                refused.append(problem)
                raise

    host, port = url.removeprefix("https://").split(":")
    made = eventually(lambda: Port((host, int(port)), Handler), 10)
    made.socket = exposure.context(tls).wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield heard, refused
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


# --- Tasks of another user --------------------------------------------------------------


@needs_root
def test_a_task_of_another_user_knows_whom_to_trust(processes: Processes, tmp_path: Path) -> None:
    stack = Stack(processes, tmp_path, "--tls", "auto", "--cores", "1", "--run-as", "nobody")
    told = stack.text("run", "--", "sh", "-c", 'echo "$BANYAN_TLS_CA"; echo "${BANYAN_SOCKET-no}"')
    assert told.removesuffix("\nno").strip() == (stack.data / "tls" / "ca.pem").read_text().strip()


def test_certificates_themselves_are_as_good_as_their_file(tmp_path: Path) -> None:
    made = own_certificate.ensure(_made(tmp_path / "data"), "127.0.0.1")
    open_file = Path("/etc/hosts")
    assert trust.for_other_user(str(open_file)) == str(open_file)
    assert trust.for_other_user("") == ""
    assert trust.for_other_user("/nowhere.pem") == "/nowhere.pem"
    (tmp_path / "data").chmod(0o700)
    text = trust.for_other_user(str(made.trusted))
    assert text == made.trusted.read_text()
    file = Path(trust.readable(text))
    assert file.read_text() == text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert trust.readable(text) == str(file)


def test_a_fork_trusts_the_same_when_the_file_of_its_parent_is_gone(tmp_path: Path) -> None:
    made = own_certificate.ensure(tmp_path, "127.0.0.1")
    [one] = listening.listen("127.0.0.1", 0, 1)
    url = f"https://127.0.0.1:{one.getsockname()[1]}"
    listening.close([one])
    with Client(url, "t", retry_seconds=0, tls_ca=made.trusted.read_text()) as client:

        def in_child() -> list[Any]:
            file = client.transport.tls_ca
            os.unlink(file)  # as at the end of the parent
            return [client.transport.ask("GET", "/").status, client.transport.tls_ca == file]

        with impostor(url, made) as (heard, _):
            assert in_fork(in_child) == [500, False]
    assert len(heard) == 1
