"""Where a run without a server writes: nobody else can lead it to another file."""

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.cli import telling
from banyan.errors import EXIT_OK, EXIT_USAGE, BanyanError
from banyan.worker import cells, launching
from banyan.worker.spool import STDOUT, Spool
from banyan.worker.standalone.outputs import stem
from tests.harness import Processes, Started
from tests.harness.forks import in_fork
from tests.harness.processes import MARK
from tests.security.others import NOBODY, give_away
from tests.worker.test_run_as import needs_root


class Place:
    """A directory with a file of tasks, and one that no run is to touch."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        self.processes = processes
        self.directory = directory / "place"
        self.elsewhere = directory / "elsewhere"
        for made in (self.directory, self.elsewhere):
            made.mkdir(mode=0o755)
        (self.elsewhere / "a.result").write_text("kept")
        self.file = self.directory / "tasks.jsonl"
        self.output = self.directory / "tasks.jsonl.d"
        task = {"name": "a", "command": "echo done", "env": {MARK: processes.mark}}
        self.file.write_text(json.dumps(task))

    def begin(self, *more: str) -> Started:
        return self.processes.banyan("worker", "--standalone", str(self.file), *more)

    def is_refused(self, said: str) -> None:
        """Nothing is written, here or elsewhere."""
        before = sorted(self.directory.rglob("*"))
        run = self.begin()
        assert run.wait(30) == EXIT_USAGE
        assert said in run.stderr
        assert "--output DIR names another" in run.stderr
        assert "Traceback" not in run.stderr
        assert sorted(self.directory.rglob("*")) == before
        assert [path.name for path in self.elsewhere.iterdir()] == ["a.result"]
        assert (self.elsewhere / "a.result").read_text() == "kept"

    def is_used(self, *more: str) -> None:
        run = self.begin(*more)
        assert run.wait(60) == EXIT_OK, run.stderr


@pytest.fixture
def place(processes: Processes, tmp_path: Path) -> Place:
    return Place(processes, tmp_path)


@needs_root
def test_a_link_that_somebody_has_planted_is_not_followed(place: Place):
    place.output.symlink_to(place.elsewhere)
    give_away(place.directory)
    place.is_refused("place belongs to nobody")
    os.chown(place.directory, 0, 0)
    place.directory.chmod(0o1777)  # as /tmp is
    place.is_refused("tasks.jsonl.d belongs to nobody")


@needs_root
def test_a_directory_whose_owner_could_exchange_it_is_not_used(place: Place):
    give_away(place.directory)
    place.is_refused("place belongs to nobody")


@needs_root
def test_nor_one_that_somebody_has_prepared(place: Place):
    """With links in it, to be exchanged for ours while we are at work."""
    (place.output / ".banyan").mkdir(parents=True)
    for name in ("launcher.stderr", "launcher.pid"):
        (place.output / ".banyan" / name).symlink_to(place.elsewhere / "a.result")
    give_away(place.directory)
    os.chown(place.directory, 0, 0)
    place.is_refused("tasks.jsonl.d belongs to nobody")


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_nor_one_that_anybody_could_exchange(place: Place, mode: int):
    place.directory.chmod(mode)
    place.is_refused("place may be written by everybody")


@needs_root
def test_nor_one_that_a_group_could_exchange(place: Place):
    os.chown(place.directory, -1, NOBODY)
    place.directory.chmod(0o2775)
    place.is_refused("place may be written by the group")


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_nor_one_into_which_anybody_can_put_something(place: Place, mode: int):
    place.output.mkdir()
    place.output.chmod(mode)
    place.is_refused("tasks.jsonl.d may be written by everybody")


def test_another_directory_can_be_named(place: Place, tmp_path: Path):
    place.directory.chmod(0o777)
    place.is_used("--output", str(tmp_path / "own" / "output"))
    assert (tmp_path / "own" / "output" / "a.out").read_text() == "done\n"


def test_one_of_ours_is_used_where_everybody_can_make_one(place: Place):
    place.directory.chmod(0o1777)  # as /tmp is
    for _ in range(2):
        place.is_used()
    assert (place.output / "a.out").read_text() == "done\n"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (place.output, place.output / ".banyan")]
    assert modes == [0o755, 0o700]


def test_a_link_of_ours_is_followed(place: Place):
    place.output.symlink_to(place.elsewhere)
    place.is_used()
    assert (place.elsewhere / "a.out").read_text() == "done\n"


# --- Whose files these are -----------------------------------------------------------------


LONG = "x" * 200
ALIKE = [
    LONG, f"{LONG}~", f"{LONG}1", f"{LONG}2", "/" * 67, "%2F" * 67, "é" * 99, "é" * 100,
    ".a", "%2Ea", "a", "a.result", "\ud800",
]  # fmt: skip


def test_no_two_names_share_a_file(place: Place):
    names = [*ALIKE, stem(f"{LONG}1"), "\U0010ffff" * 256]
    assert len({stem(name) for name in names}) == len(names)
    assert all(len(f"{stem(name)}.result.new") <= 255 for name in names)
    told = [f"{LONG}1", f"{LONG}2"]
    env = {MARK: place.processes.mark}
    tasks = [{"name": name, "command": f"echo {name[-1]}", "env": env} for name in told]
    place.file.write_text("\n".join(map(json.dumps, tasks)))
    place.is_used()
    written = [(place.output / f"{stem(name)}.out").read_text() for name in told]
    assert written == ["1\n", "2\n"]


@pytest.fixture
def seen() -> Iterator[Path]:
    """A directory that is ours, and that any user may enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@needs_root
def test_a_task_of_another_user_tells_its_result_and_gets_no_directory(
    processes: Processes, seen: Path, tmp_path: Path
):
    place = Place(processes, seen)
    kept = tmp_path / "kept"
    kept.write_text("kept")
    commands = {
        "tells": 'echo "{\\"loss\\": 1}" > "$BANYAN_RESULT_FILE"',
        "silent": "true",
        "again": 'test -s "$BANYAN_RESULT_FILE" || { echo 1 > "$BANYAN_RESULT_FILE"; exit 1; }',
        "plants": 'd=$(dirname "$BANYAN_RESULT_FILE"); rm "$BANYAN_RESULT_FILE" || '
        'touch "$d/new" || ln -s / "$d/plants.out" || echo refused',
    }
    tasks: list[dict[str, Any]] = [
        {"name": name, "command": command, "retries": 1, "env": {MARK: processes.mark}}
        for name, command in commands.items()
    ]
    place.file.write_text("\n".join(map(json.dumps, tasks)))
    place.output.mkdir()
    (place.output / "silent.result").symlink_to(kept)
    place.is_used("--run-as", "nobody")
    results = sorted(path.name for path in place.output.glob("*.result"))
    assert results == ["again.result", "tells.result"]
    assert json.loads((place.output / "tells.result").read_text()) == {"loss": 1}
    assert (place.output / "tells.result").stat().st_uid == NOBODY
    assert (place.output / "plants.out").read_text() == "refused\n"
    assert kept.read_text() == "kept"
    assert kept.stat().st_uid == 0


@needs_root
def test_banyan_result_writes_where_it_may_make_no_file(seen: Path, monkeypatch: Any):
    file = seen / "a.result"
    file.write_text("much longer than what is told now")
    os.chown(file, NOBODY, -1)
    monkeypatch.setenv("BANYAN_RESULT_FILE", str(file))

    def tell() -> None:
        os.setuid(NOBODY)
        telling._keep_result("[1]", None)

    in_fork(tell)
    assert file.read_text() == "[1]\n"


# --- What lies beside a launcher -----------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    file = tmp_path / "kept"
    file.write_text("1\n/sys/fs/cgroup/memory/banyan-1")
    return file


def test_files_of_a_launcher_stand_in_place_of_links(tmp_path: Path, kept: Path):
    state = tmp_path / "state"
    state.mkdir()
    for name in ("launcher.stderr", "launcher.pid"):
        (state / name).symlink_to(kept)
    before = kept.read_bytes()
    line, process = launching.start(state)
    line.close()
    assert process.wait(30) == 0
    assert kept.read_bytes() == before
    assert (state / "launcher.pid").read_text().split()[0] == str(process.pid)
    assert not (state / "launcher.stderr").is_symlink()


@pytest.mark.parametrize(
    ("name", "read"),
    [("launcher.stderr", launching.stderr), ("launcher.pid", launching.kill)],
)
def test_nor_are_links_read(tmp_path: Path, kept: Path, name: str, read: Callable[[Path], object]):
    (tmp_path / name).symlink_to(kept)
    with pytest.raises(BanyanError, match=f"{name} is a link"):
        read(tmp_path)


def test_the_note_of_cells_is_no_link(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch):
    cleared: list[Path] = []
    root = tmp_path / "banyan-99999999"  # which is no process
    root.mkdir()
    monkeypatch.setattr(cells, "make_root", lambda _: root)
    monkeypatch.setattr(cells, "_make_twins", lambda _: {})
    monkeypatch.setattr(cells, "_homes", lambda _: [])
    monkeypatch.setattr(cells, "_clear", lambda found: not cleared.append(found))
    kept.write_text(str(root))
    (tmp_path / cells.NOTE).symlink_to(kept)
    cells.clear(tmp_path)
    assert cleared == [], "whoever made the link could name what is to be killed"
    (tmp_path / cells.NOTE).symlink_to(tmp_path / "made")
    cells.Cells(tmp_path)._look()
    assert not (tmp_path / "made").exists()
    assert (tmp_path / cells.NOTE).read_text() == str(root)
    cells.clear(tmp_path)
    assert cleared == [root]


def test_output_that_waits_is_written_through_no_link(tmp_path: Path, kept: Path):
    before = kept.read_bytes()
    (tmp_path / "attempt").symlink_to(kept)
    spool = Spool(str(tmp_path / "attempt"), 1 << 20)
    spool.add(STDOUT, b"forged")
    spool.flush()
    assert "symbolic links" in (spool.trouble or "")
    assert kept.read_bytes() == before
