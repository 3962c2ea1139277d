"""Which MongoDBs leak what they hold, and who is told of it."""

import json
import socket
import sys
from pathlib import Path

import pytest

from banyan.errors import EXIT_OK, EXIT_TASK_FAILED
from banyan.server.doctor import database, notes
from banyan.server.doctor.leaks import check
from banyan.server.leaks import known_leaks
from banyan.server.store import release
from tests.harness import Processes, start_server
from tests.harness.mongo import mongo_on_a_port

NAME = "CVE-2025-14847"


@pytest.mark.parametrize(
    ("version", "leaks"),
    [
        *((one, True) for one in ("4.2.25", "4.4.29", "5.0.31", "6.0.5", "6.0.26", "7.0.26")),
        *((one, True) for one in ("8.0.16", "8.2.2", "8.0.16-5", "7.0.0-rc3")),
        *((one, True) for one in ("6.3.2", "7.3.4", "8.1.2")),  # never mended
        *((one, False) for one in ("4.4.30", "5.0.32", "6.0.27", "7.0.28", "7.0.31", "8.0.17")),
        *((one, False) for one in ("8.2.3", "8.0.17-6", "8.3.0", "9.0.1", "", "unknown")),
    ],
)
def test_versions(version: str, leaks: bool):
    assert known_leaks(version) == ([NAME] if leaks else [])


def test_of_one_on_a_port_doctor_and_server_tell(processes: Processes, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri, _ = mongo_on_a_port(processes, tmp_path / "own", port)
    with database(uri) as store:
        version = release.version(store)
        if not known_leaks(version):
            pytest.skip(f"this mongod, {version}, has no leak")
        (found,) = check(store)
        assert notes(store, private=False) == []
    assert (found.subject, NAME in found.message) == (f"MongoDB {version}", True)
    assert "--networkMessageCompressors disabled" in found.advice
    server = start_server(processes, tmp_path / "data", uri)
    (line,) = [one for one in server.started.stderr.splitlines() if NAME in one]
    assert f"MongoDB {version}" in line


def test_of_the_private_one_the_server_is_silent_and_the_doctor_says_why(
    processes: Processes, tmp_path: Path
):
    data = str(tmp_path / "data")
    started = processes.banyan("server", "--json", "--port", "0", "--data", data)
    started.line(60)
    assert NAME not in started.stderr
    told = doctor(processes, "--data", data, "--json")
    answer = json.loads(told)
    assert answer["found"] == []
    for note in answer["notes"]:  # none where the mongod has no leak
        assert NAME in note
        assert "only you can reach its socket" in note
        assert f"note: {note}" in doctor(processes, "--data", data).splitlines()
    started.terminate()
    refusal = processes.start([sys.executable, "-m", "banyan", "doctor", "--data", data])
    assert refusal.wait(60) not in (EXIT_OK, EXIT_TASK_FAILED)
    assert "no private MongoDB runs in" in refusal.stderr


def doctor(processes: Processes, *options: str) -> str:
    started = processes.start([sys.executable, "-m", "banyan", "doctor", *options])
    assert started.wait(60) == EXIT_OK, started.stderr
    return started.stdout
