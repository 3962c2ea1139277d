"""A state directory is removed while its worker runs, and another user is the first to make it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from banyan.worker import output_files
from banyan.worker.output import Reader
from banyan.worker.spool import Spool
from tests.security.others import give, give_away

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes other users' files")
Exchange = Callable[[Path, Path], None]


def parent(place: Path, ours: Path) -> None:
    """An empty directory of another user above the state directory."""
    place.mkdir()
    give(place)


def directories(place: Path, ours: Path) -> None:
    """All of them."""
    (place / "state" / "output").mkdir(parents=True)
    give_away(place)


def link_above(place: Path, ours: Path) -> None:
    """A link to a directory of ours above the state directory."""
    place.symlink_to(ours)
    give(place)


def link(place: Path, ours: Path) -> None:
    """A link to a directory of ours in place of the state directory."""
    place.mkdir()
    (place / "state").symlink_to(ours / "state")
    give_away(place)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Above a state directory with nothing in it yet; beside it: `ours`, with a file to lose."""
    (tmp_path / "place" / "state" / "output").mkdir(parents=True, mode=0o700)
    (tmp_path / "ours" / "state" / "output").mkdir(parents=True, mode=0o700)
    (tmp_path / "ours" / "state" / "output" / "file").write_text("ours")
    return tmp_path / "place"


def files_in(directory: Path) -> list[tuple[str, bytes]]:
    every = sorted(directory.parent.rglob("*"))
    return [(str(one), one.read_bytes() if one.is_file() else b"") for one in every]


@pytest.mark.parametrize("exchange", [parent, directories, link_above, link])
def test_the_launcher_follows_nobody_elses(place: Path, exchange: Exchange) -> None:
    path = str(place / "state" / "output" / "file")
    held = output_files.make(path)
    os.write(held, b"output")
    shutil.rmtree(place)
    exchange(place, place.parent / "ours")
    before = files_in(place)
    refused = pytest.raises(PermissionError, match="somebody else could have put something there")
    with refused:
        output_files.make(path)
    with refused:
        output_files.put_back(path, held)
    assert files_in(place) == before
    os.close(held)


def a_file(path: Path, output: bytes) -> None:
    path.write_bytes(output)
    give(path)


def a_link(path: Path, output: bytes) -> None:
    """To a file of ours."""
    path.with_name("ours").write_bytes(output)
    path.symlink_to("ours")
    give(path)


def a_pipe(path: Path, output: bytes) -> None:
    """For which one could wait for ever."""
    os.mkfifo(path)
    give(path)


@pytest.mark.parametrize("put", [a_file, a_link, a_pipe])
def test_the_agent_takes_nobody_elses_for_output(
    place: Path, put: Callable[[Path, bytes], None]
) -> None:
    path = place / "state" / "output" / "file"
    spool, reader = Spool(str(path), 1 << 20), Reader(path)
    spool.add(1, b"hello\n")
    spool.flush()
    output = path.read_bytes()
    assert [chunk.data for chunk in reader.read(1000)[0]] == [b"hello\n"]
    path.unlink()
    put(path, output)
    assert (reader.read(1000), reader.left) == (([], False), 0)
    reader.complete(None, len(output))
    assert reader.is_lost


def test_the_loss_is_told(place: Path) -> None:
    spool = Spool(str(place / "state" / "output" / "file"), 1 << 20)
    shutil.rmtree(place)
    parent(place, place)
    spool.add(1, b"hello\n")
    spool.flush()
    assert spool.trouble == "output lost: somebody else could have put something there"


def test_what_nobody_has_taken_is_made_anew_for_us_alone(place: Path) -> None:
    shutil.rmtree(place)
    outputs = place / "state" / "output"
    os.close(output_files.make(str(outputs / "file")))
    modes = [one.stat().st_mode & 0o777 for one in (place / "state", outputs, outputs / "file")]
    assert modes == [0o700, 0o700, 0o600]


def test_an_own_link_to_a_place_with_more_room_will_do(place: Path) -> None:
    outputs, elsewhere = place / "state" / "output", place.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    outputs.rmdir()
    outputs.symlink_to(elsewhere)
    os.close(output_files.make(str(outputs / "file")))
    assert (elsewhere / "file").exists()
