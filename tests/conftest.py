"""What every test may ask for: a MongoDB, a fresh database, processes, a running server."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Processes, Server, marked_processes, start_server
from tests.harness.mongo import database, session_mongo
from tests.harness.order import SLOW_FOLDERS, is_quick, put_longest_files_first
from tests.harness.processes import MARK

IN_MEMORY = "banyan-test-"
MONGO_BYTES = 4 * 1024**3  # ten times what it mostly has, and several sessions go on at a time


def pytest_addoption(parser: pytest.Parser) -> None:
    """`scripts/test --fast`: an answer within a minute and a half, while somebody writes."""
    told = "only tests that start nothing, and need no database"
    parser.addoption("--fast", action="store_true", help=told)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only quick tests are wanted, folders without them are not even loaded."""
    return (config.getoption("--fast") and collection_path.name in SLOW_FOLDERS) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first; of all tests or of the quick ones."""
    put_longest_files_first(items)
    if config.getoption("--fast"):
        slow = [item for item in items if not is_quick(item)]
        config.hook.pytest_deselected(items=slow)
        items[:] = filter(is_quick, items)


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the user's settings, profiles or data, and none outlives the session."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("BANYAN_")]:
        if not name.startswith("BANYAN_TEST_"):
            patch.delenv(name)
    # Else each of a thousand processes would compile the whole package anew.
    patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    home = tmp_path_factory.mktemp("home")
    for name in ("CONFIG", "DATA", "STATE", "CACHE", "RUNTIME"):
        directory = home / name.lower()
        directory.mkdir(mode=0o700)
        patch.setenv(f"XDG_{name}_{'DIR' if name == 'RUNTIME' else 'HOME'}", str(directory))
    patch.setenv("HOME", str(home))
    mark = os.urandom(8).hex()
    patch.setenv(MARK, mark)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, signal.default_int_handler)  # else no process hears Ctrl-C
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as below `nohup`
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    patch.undo()
    left = marked_processes(mark)
    assert not left, f"processes were left behind: {left}"


def place_in_memory() -> str | None:
    """A file system that waits for no disk, where there is one with room; None: the usual one.

    Every test with a database of its own makes some forty indexes, and each waits for the disk.
    """
    place = Path("/dev/shm")  # noqa: S108 - what is made there is nobody else's
    if place.is_dir() and shutil.disk_usage(place).free > MONGO_BYTES:
        return str(place)
    return None


def remove_forsaken(place: Path) -> None:
    """What killed sessions of this user have left there takes the machine's memory."""
    for path in place.glob(f"{IN_MEMORY}*"):
        pid = path.name.removeprefix(IN_MEMORY).partition("-")[0]
        is_ours = path.stat().st_uid == os.geteuid()
        if is_ours and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def mongo(own_surroundings: None) -> Iterator[str]:
    """The address of a MongoDB for the whole session."""
    place = place_in_memory()
    if place:
        remove_forsaken(Path(place))
    prefix = f"{IN_MEMORY}{os.getpid()}-"
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        with session_mongo(directory) as uri:
            yield uri
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # 300 MB, which pytest would keep


@pytest.fixture
def fresh_database(mongo: str) -> Iterator[str]:
    """The address of an empty database, this test's own."""
    with database(mongo) as uri:
        yield uri


@pytest.fixture(scope="module")
def module_database(mongo: str) -> Iterator[str]:
    """The address of an empty database, shared by the tests of one file."""
    with database(mongo) as uri:
        yield uri


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes; at the end of the test they are ended, and none may be left."""
    own = Processes(tmp_path)
    yield own
    own.end()


@pytest.fixture
def serve(processes: Processes, tmp_path: Path, fresh_database: str) -> Callable[..., Server]:
    """`serve(server_processes=2, LEASE_SECONDS=2)`: a server of this test's own."""

    def start(data: str = "data", **knobs: Any) -> Server:
        return start_server(processes, tmp_path / data, fresh_database, **knobs)

    return start


@pytest.fixture(scope="module")
def server(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default knobs, shared by the tests of one file."""
    directory = tmp_path_factory.mktemp("server")
    own = Processes(directory)
    yield start_server(own, directory / "data", module_database)
    own.end()
