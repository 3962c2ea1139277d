"""`banyan server` as a whole: ready, refused, killed, and gone on from where it was."""

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from banyan.errors import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE
from banyan.socket_paths import PATH_BYTES_MAX
from tests.harness import Api, Processes, Server, Started, eventually, marked_processes

Serve = Callable[..., Server]


def private(processes: Processes, data: Path, *more: str, **environment: str) -> Started:
    """A server with a MongoDB of its own."""
    arguments = ["server", "--json", "--port", "0", "--data", str(data), *more]
    return processes.banyan(*arguments, environment=environment)


def ready(started: Started) -> Server:
    told = json.loads(started.line(60))
    return Server(started, told["url"], Path(told["credentials"]))


def children(server: Server, processes: Processes, of: str) -> list[int]:
    """The ids of the processes whose command has `of` in it."""
    found = marked_processes(processes.mark).items()
    return [pid for pid, command in found if of in command and "last_will" not in command]


def is_ready(server: Server) -> bool:
    try:
        return server.anonymous.get("readyz").status_code == 200
    except requests.ConnectionError:
        return False


def test_one_line_tells_where_it_is(serve: Serve) -> None:
    server = serve()
    assert set(json.loads(server.started.stdout)) == {"url", "credentials"}
    assert server.started.stdout.count("\n") == 1
    assert set(server.tokens) == {"admin", "provider", "worker"}
    assert stat.S_IMODE(server.credentials.stat().st_mode) == 0o600
    assert is_ready(server)


def test_the_command_line_finds_it_by_its_profile(serve: Serve, processes: Processes) -> None:
    server = serve()
    listed = processes.banyan("ls", "--json")
    assert listed.wait() == 0, listed.stderr
    assert server.url


def test_people_are_told_what_to_do_next(processes: Processes, tmp_path: Path, mongo: str) -> None:
    arguments = ["--port", "0", "--data", str(tmp_path / "data")]
    started = processes.banyan("server", *arguments, environment={"BANYAN_MONGO_URI": mongo})
    eventually(lambda: "banyan run" in started.stdout, 30)
    assert started.stdout.startswith("Banyan is ready at http://127.0.0.1:")


def test_where_logs_are_json_it_is_a_line_of_json(
    processes: Processes, tmp_path: Path, mongo: str
) -> None:
    environment = {"BANYAN_MONGO_URI": mongo, "BANYAN_LOG_FORMAT": "json"}
    arguments = ["--port", "0", "--data", str(tmp_path / "data")]
    started = processes.banyan("server", *arguments, environment=environment)
    assert json.loads(started.line(60))["url"].startswith("http://127.0.0.1:")


def test_sigterm_ends_all_that_it_started(processes: Processes, tmp_path: Path) -> None:
    server = ready(private(processes, tmp_path / "data"))
    assert server.started.terminate(20) == 0
    assert not marked_processes(processes.mark)


def test_impatience_does_not_cut_the_end_short(processes: Processes, tmp_path: Path) -> None:
    server = ready(private(processes, tmp_path / "data"))

    def ended() -> bool:
        server.started.signal(signal.SIGINT)  # Ctrl-C, again and again
        return server.started.process.poll() is not None

    eventually(ended, 20)
    assert server.started.wait() == 0
    log = (tmp_path / "data" / "mongo" / "log").read_text()
    assert json.loads(log.splitlines()[-1])["attr"] == {"exitCode": 0}  # and was not killed


def test_ctrl_c_at_the_terminal_reaches_nobody_else(processes: Processes, tmp_path: Path) -> None:
    server = ready(private(processes, tmp_path / "data"))
    ours = os.getpgid(server.started.pid)
    others = {os.getpgid(pid) for pid in marked_processes(processes.mark)} - {ours}
    assert len(others) == 2  # the database and the server process, each in its own group


def test_ctrl_c_while_it_starts_leaves_nothing(processes: Processes, tmp_path: Path) -> None:
    started = private(processes, tmp_path / "data")
    eventually(lambda: any("mongod" in one for one in marked_processes(processes.mark).values()))
    started.signal(signal.SIGINT)
    assert started.wait(20) == 0, started.stderr
    assert not marked_processes(processes.mark)


def test_killed_it_takes_all_with_it_and_the_next_start_goes_on(
    processes: Processes, tmp_path: Path
) -> None:
    first = ready(private(processes, tmp_path / "data"))
    made = first.provider.post("tasks", {"name": "kept"})
    assert made.status_code == 201, made.text
    first.started.kill()
    eventually(lambda: not marked_processes(processes.mark), 5)
    second = ready(private(processes, tmp_path / "data"))
    assert second.tokens == first.tokens
    assert second.provider.get(f"tasks/{made.json()['_id']}").json()["name"] == "kept"


def test_a_second_start_on_the_directory_is_refused(processes: Processes, tmp_path: Path) -> None:
    first = ready(private(processes, tmp_path / "data"))
    second = private(processes, tmp_path / "data")
    assert second.wait(20) == EXIT_REFUSED
    assert str(first.started.pid) in second.stderr
    assert second.stdout == ""
    assert is_ready(first)


def test_a_taken_port_is_told(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    port = serve().url.rsplit(":", 1)[1]
    second = private(processes, tmp_path / "other", "--port", port)
    assert second.wait(20) == EXIT_USAGE
    assert port in second.stderr
    assert not (tmp_path / "other" / "mongo").exists()


def test_a_killed_database_comes_back_with_its_data(processes: Processes, tmp_path: Path) -> None:
    server = ready(private(processes, tmp_path / "data"))
    task = server.provider.post("tasks", {"name": "kept"}).json()["_id"]
    [database] = children(server, processes, "mongod")
    os.kill(database, signal.SIGKILL)
    eventually(lambda: children(server, processes, "mongod") not in ([], [database]), 20)
    eventually(lambda: is_ready(server), 30)
    assert server.provider.get(f"tasks/{task}").json()["name"] == "kept"


def test_a_killed_server_process_is_started_anew(serve: Serve, processes: Processes) -> None:
    server = serve()
    [process] = children(server, processes, "banyan.server.serve")
    os.kill(process, signal.SIGKILL)
    eventually(lambda: is_ready(server), 20)
    assert children(server, processes, "banyan.server.serve") != [process]


def test_while_one_of_two_processes_is_gone_the_other_serves(
    serve: Serve, processes: Processes
) -> None:
    server = serve(server_processes=2)
    first, _second = children(server, processes, "banyan.server.serve")
    os.kill(first, signal.SIGKILL)
    for _ in range(20):
        assert Api(server.url).get("readyz").status_code == 200


def test_a_change_through_one_process_wakes_who_waits_at_another(serve: Serve) -> None:
    server = serve(server_processes=2)
    task = server.provider.post("tasks", {"name": "before"}).json()

    def wait(seconds: float) -> requests.Response:
        own = Api(server.url, server.tokens["provider"])  # a connection of its own
        headers = {"If-None-Match": f'"{task["_etag"]}"'}
        return own.get(f"tasks/{task['_id']}", headers=headers, wait=seconds)

    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(wait, 30) for _ in range(16)]
        assert wait(1).status_code == 304  # by now all of them are held
        assert not any(answer.done() for answer in answers)
        changed = server.provider.patch(f"tasks/{task['_id']}", {"name": "after"})
        assert changed.status_code == 200, changed.text
        assert {answer.result(20).json()["name"] for answer in answers} == {"after"}


def test_what_dies_again_and_again_is_given_up(processes: Processes, tmp_path: Path) -> None:
    broken = private(processes, tmp_path / "data", BANYAN_SERVER_THREADS="0")
    assert broken.wait(40) == EXIT_UNAVAILABLE
    assert "max_workers must be greater than 0" in broken.stderr
    assert "has ended 5 times" in broken.stderr
    assert not marked_processes(processes.mark)


def test_a_data_directory_too_deep_for_a_socket_serves_also_after_a_death(
    processes: Processes, tmp_path: Path
) -> None:
    server = ready(private(processes, tmp_path / ("d" * PATH_BYTES_MAX)))
    assert server.provider.post("tasks", {"name": "kept"}).status_code == 201
    [process] = children(server, processes, "banyan.server.serve")
    os.kill(process, signal.SIGKILL)
    eventually(lambda: is_ready(server), 30)


def test_the_password_of_the_database_is_in_no_command(
    processes: Processes, tmp_path: Path
) -> None:
    server = ready(private(processes, tmp_path / "data"))
    assert children(server, processes, "banyan.server.serve")
    assert not children(server, processes, "mongodb://")


def test_files_of_the_current_directory_are_not_imported(
    processes: Processes, tmp_path: Path, mongo: str
) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('imported by accident')")
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from banyan.cli.main import main"
    arguments = ["server", "--json", "--port", "0", "--data", str(tmp_path / "data")]
    started = processes.start(
        [sys.executable, "-P", "-c", f"{start}; sys.exit(main())", "/nowhere", *arguments],
        {"BANYAN_MONGO_URI": mongo},
    )
    assert is_ready(ready(started))
