"""What lies in deploy/: systemd accepts the units, and each command there is one of ours.

There is no systemd and no container at work here: what a restart by the unit comes to is
played with its signals, and the compose file is held to what can be told from its text.
"""

import configparser
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import psutil
import pytest
from pymongo import MongoClient

from banyan.cli.main import banyan
from banyan.config import knobs
from banyan.server.mongod import find_mongod
from tests.harness import Processes, Server, eventually, start_server
from tests.harness.processes import ROOT
from tests.packaging.test_wheel import BUILT_FROM
from tests.worker.crew import Crew

yaml = pytest.importorskip("yaml")  # comes with schemathesis

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
# Environment variables of ours that are no knobs.
OTHERS = {"BANYAN_DATA", "BANYAN_TLS_CA", "BANYAN_URL", "BANYAN_WORKER_OPTIONS"}
NEWER_THAN_252 = "Unknown key 'DelegateSubgroup' in section [Service], ignoring."
KNOWN_OF_A_SERVICE = {
    "image", "build", "command", "networks", "volumes", "healthcheck", "restart", "init", "user",
    "environment", "ports", "depends_on", "stop_grace_period", "secrets", "network_mode",
    "group_add",
}  # fmt: skip


def settings_of(unit: Path) -> dict[str, str]:
    """The section [Service], the last value of each key."""
    text = re.sub(r"\\\n\s*", "", unit.read_text())
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(text)
    return dict(parser["Service"])


def environment_of(text: str) -> dict[str, str]:
    """Lines like `NAME=value`, also those that are commented out."""
    return dict(re.findall(r"^#?(BANYAN_\w+)=(.*)$", text, re.MULTILINE))


def understood(words: list[str]) -> dict[str, Any]:
    """What our command line makes of these words, without doing it."""
    group = banyan.make_context("banyan", words)
    name, command, rest = banyan.resolve_command(group, words)
    assert command is not None
    return command.make_context(name, rest).params


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze here")
    # The program of the unit has to be there; here it is somewhere else.
    for one in UNITS:
        text = one.read_text().replace("/opt/banyan/bin/banyan", sys.executable)
        (tmp_path / one.name).write_text(text)
    checked = subprocess.run(
        [program, "verify", str(tmp_path / unit.name)], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    said = [line for line in checked.stderr.splitlines() if not line.endswith(NEWER_THAN_252)]
    assert said == []


def test_the_units_start_what_the_command_line_understands():
    token = "/run/token"
    for unit in UNITS:
        settings = settings_of(unit)
        program, *words = settings["ExecStart"].split()
        assert program == "/opt/banyan/bin/banyan"
        options = environment_of((DEPLOY / "worker.env").read_text())["BANYAN_WORKER_OPTIONS"]
        values = {"${BANYAN_URL}": "http://head:5100", "${CREDENTIALS_DIRECTORY}/token": token}
        filled = [values.get(word, word) for word in words if word != "$BANYAN_WORKER_OPTIONS"]
        if "$BANYAN_WORKER_OPTIONS" in words:
            filled += options.split()
            assert understood(filled)["queue"] == ("default", "night")
        understood(filled)


def test_every_variable_is_a_knob_and_every_value_one_of_its_kind():
    texts = [path.read_text() for path in [*UNITS, *DEPLOY.glob("*.env")]]
    given = [pair for text in texts for pair in environment_of(text).items()]
    given += re.findall(r"\b(BANYAN_\w+)=(\S*)", "".join(texts))
    given += [
        (name, value)
        for service in COMPOSE["services"].values()
        for name, value in service.get("environment", {}).items()
    ]
    assert len(given) > 10
    known = vars(knobs())
    for name, value in given:
        knob = known.get(name.removeprefix("BANYAN_"))
        assert knob is not None or name in OTHERS, name
        if isinstance(knob, int | float) and not isinstance(knob, bool):
            type(knob)(value)


# --- compose -----------------------------------------------------------------------------


def test_the_compose_file_hangs_together():
    services = COMPOSE["services"]
    assert set(services) == {"mongo", "server", "worker"}
    for name, service in services.items():
        assert set(service) <= KNOWN_OF_A_SERVICE, name
        assert ("image" in service) != ("build" in service)
        assert ("networks" in service) != ("network_mode" in service)
        assert set(service.get("networks", ())) <= set(COMPOSE["networks"])
        assert {one.split(":")[0] for one in service["volumes"]} <= set(COMPOSE["volumes"])
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for other in service.get("depends_on", {}):
            assert "test" in services[other]["healthcheck"]
    used = {one.split(":")[0] for service in services.values() for one in service["volumes"]}
    assert used == set(COMPOSE["volumes"])


def test_compose_starts_what_the_command_line_understands():
    server, worker = (COMPOSE["services"][name]["command"] for name in ("server", "worker"))
    assert understood(server)["data"] == Path("/data")
    assert understood(worker)["run_as"] == "banyan"
    build = COMPOSE["services"]["server"]["build"]
    dockerfile = (DEPLOY / build["context"] / build["dockerfile"]).resolve().read_text()
    assert 'ENTRYPOINT ["banyan"]' in dockerfile
    extras = re.findall(r"/src\[([a-z,]+)\]", dockerfile)[0].split(",")
    assert set(extras) <= set(re.findall(r'"(\w+)": [A-Z]+,', (ROOT / "setup.py").read_text()))


def test_nothing_of_compose_is_open_to_other_machines():
    services = COMPOSE["services"]
    published = [port for one in services.values() for port in one.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    # What forwards addresses is believed, so nobody else may reach such a port.
    assert not understood(services["server"]["command"])["behind_proxy"]
    assert services["server"]["environment"]["BANYAN_ALLOW_PLAIN_HTTP"] == "1"
    assert services["worker"]["networks"] == ["workers"]
    assert services["worker"]["volumes"] == ["worker:/state"]  # the admin's token is not its own


def test_every_mongod_that_we_show_is_closed():
    """By passwords and TLS, or by being where nobody else gets: no network keeps a host out."""
    operations = (ROOT / "docs" / "operations.md").read_text().replace("\\\n", " ")
    (members,) = re.findall(r"^ +(mongod --replSet .*)$", operations, re.MULTILINE)
    mongo = COMPOSE["services"]["mongo"]
    of_compose = " ".join(mongo["command"]).replace("=", " ")
    for command in (members.replace("=", " "), of_compose):
        assert "--networkMessageCompressors disabled" in command
        assert "--setParameter enableLocalhostAuthBypass false" in command
    assert "--keyFile" in members
    assert "--tlsMode requireTLS" in members
    assert "--keyFile" not in of_compose
    assert (mongo["network_mode"], mongo.get("ports")) == ("none", None)
    (place,) = re.findall(r"--bind_ip (\S+)", of_compose)
    assert re.fullmatch(r"/[\w./]+", place)
    assert "--bind_ip_all" not in of_compose
    assert "--filePermissions 0770" in of_compose


def test_only_the_server_gets_to_the_database():
    services = COMPOSE["services"]
    holders: dict[str, set[str]] = {}
    for name, service in services.items():
        for volume in service["volumes"]:
            holders.setdefault(volume.split(":")[0], set()).add(name)
    assert holders["socket"] == {"mongo", "server"}
    assert holders["database"] == {"mongo"}
    assert not any(value for value in COMPOSE["volumes"].values())  # none is the host's directory
    with_group = {name for name, one in services.items() if "group_add" in one}
    assert with_group == {"server"}


def test_the_mongod_of_compose_serves_a_server_and_has_no_port(
    processes: Processes, tmp_path: Path
):
    mongo, place = COMPOSE["services"]["mongo"], tmp_path / "mongod.sock"
    command = [word.replace("/data/configdb/mongod.sock", str(place)) for word in mongo["command"]]
    (tmp_path / "db").mkdir()
    program = [find_mongod().path, "--dbpath", str(tmp_path / "db"), *command]
    mongod = processes.start(program)
    eventually(place.is_socket, 60)
    assert place.stat().st_mode & 0o777 == 0o770
    (member,) = re.findall(r'host: "(.+?)"', mongo["healthcheck"]["test"][-1])
    assert member == "/data/configdb/mongod.sock"
    looked_at = unquote(mongo["healthcheck"]["test"][2])
    assert looked_at == f"mongodb://{member}/?directConnection=true"
    uri = f"mongodb://{quote(str(place), safe='')}/?directConnection=true"
    with MongoClient[Any](uri) as client:
        members = [{"_id": 0, "host": str(place)}]
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        eventually(lambda: client.admin.command("hello")["isWritablePrimary"], 30)
    of_server = COMPOSE["services"]["server"]["environment"]["BANYAN_MONGO_URI"]
    assert "socket:/mongo" in COMPOSE["services"]["server"]["volumes"]
    of_server = of_server.replace("%2Fmongo%2Fmongod.sock", quote(str(place), safe=""))
    server = start_server(processes, tmp_path / "data", of_server)
    assert server.provider.post("/tasks", {"command": "true"}).status_code == 201
    sockets = psutil.Process(mongod.process.pid).net_connections("all")
    assert [one for one in sockets if one.family != socket.AF_UNIX] == []
    assert {one.laddr for one in sockets if one.laddr} == {str(place)}


def test_no_token_goes_into_an_image():
    """By the steps of the compose file a worker's token lies beside what the image is made of."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if re.match("COPY|ADD", line)]
    sources = {one for words in copied for one in words if not one.startswith("--")}
    assert sources == {*BUILT_FROM, "banyan"}
    first, *rest = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    assert first == "*"  # so that not even who builds it gets more
    assert {line[1:] for line in rest if line.startswith("!")} == sources
    (kept,) = COMPOSE["secrets"].values()
    ignored = ["git", "check-ignore", "-q", str(DEPLOY / kept["file"])]
    if (ROOT / ".git").exists() and shutil.which("git"):
        assert subprocess.run(ignored, cwd=ROOT).returncode == 0


def test_what_may_hold_a_secret_is_copied_so_that_others_cannot_read_it():
    told = "".join(path.read_text() for path in UNITS)
    steps = re.findall(r"^#   (.*) (/etc/banyan/\S+)", told, re.MULTILINE)
    assert {target for _, target in steps} == {
        f"/etc/banyan/{name}" for name in ("server.env", "worker.env", "worker.token")
    }
    for command, _ in steps:
        assert re.match(r"install (-D )?-m 600 ", command), command


# --- what a restart comes to -------------------------------------------------------------


def test_a_restart_of_the_worker_keeps_what_runs(
    serve: Callable[..., Server], processes: Processes, tmp_path: Path
):
    """SIGTERM to the agent alone, SIGKILL after a while, and the same command again."""
    settings = settings_of(DEPLOY / "systemd" / "banyan-worker.service")
    assert (settings["KillMode"], settings["Restart"]) == ("process", "always")
    crew = Crew(processes, serve(), tmp_path)
    worker = crew.worker()
    task = crew.submit(f"touch {tmp_path}/on; until test -e {tmp_path}/go; do sleep 0.1; done")
    eventually((tmp_path / "on").exists, 30)
    worker.signal(signal.SIGTERM)
    eventually(lambda: "draining" in worker.stderr)
    assert worker.process.poll() is None  # it waits for the task
    worker.kill()
    again = crew.worker()
    eventually(lambda: "taking over 1 attempt" in again.stderr, 30)
    (tmp_path / "go").touch()
    assert crew.ended(task)["outcome"] == "success"
    assert crew.statuses(task) == ["success"]
    after = crew.submit("true")
    assert crew.ended(after)["outcome"] == "success"  # the next agent takes new ones, too
    crew.dismiss()
