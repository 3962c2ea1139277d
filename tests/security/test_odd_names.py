"""Names that others give to mounts and cgroups: of any bytes but a newline, where a worker looks.

The kernel writes a blank, a tab, a newline and a backslash of a mount's name as octal numbers, and
all else as it is. Who may mount (by FUSE, anybody) must neither stop a launcher nor lead it.
"""

from pathlib import Path

import pytest

from banyan.worker import cells, cgroups, places

ODD = [b"a\rb", b"a\x0bb", b"a\x0cb", b"a\x1cb", b"a\x85b", "a\u2028b".encode(), b"\xff", b"\r"]
FIELDS = b"40 25 0:37 / /mnt/%b rw,nosuid shared:7 - fuse.odd odd rw\n"
ROOT = b"25 1 8:1 / / rw - ext4 /dev/sda rw\n"


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_mount_of_any_name_is_in_doubt_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(ROOT + FIELDS % name + FIELDS % b"other")
    monkeypatch.setattr(places, "_MOUNTS", str(table))
    known = places.Places()._read()
    assert {each.encode(errors="surrogateescape") for each in known} == {
        b"/mnt/" + name,
        b"/mnt/other",
    }


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_it_is_no_place_for_cgroups(tmp_path: Path, name: bytes) -> None:
    forged = name + b"1\x1f2\x1f3\x1f/\x1f/evil\x1frw"
    memory = b"30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    (tmp_path / "mountinfo").write_bytes(ROOT + FIELDS % forged + memory)
    (tmp_path / "cgroup").write_bytes(b"5:memory:/own\n")
    assert next(iter(cgroups.own("memory", tmp_path))) == Path("/sys/fs/cgroup/memory/own")


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_cgroup_of_any_name_can_be_told(tmp_path: Path, name: bytes) -> None:
    file = tmp_path / "cgroup"
    file.write_bytes(b"5:memory:/" + name + b"\n4:cpu:/\n")
    said = cgroups.text(file)
    assert said.encode(errors="surrogateescape") == b"5:memory:/" + name + b"\n4:cpu:/"


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_so_can_those_of_a_launcher_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    root = Path(tmp_path, name.decode(errors="surrogateescape"), "banyan-99999999")
    root.mkdir(parents=True)
    cleared: list[Path] = []
    monkeypatch.setattr(cells, "make_root", lambda _: root)
    monkeypatch.setattr(cells, "_make_twins", lambda _: {})
    monkeypatch.setattr(cells, "_homes", lambda _: [])
    monkeypatch.setattr(cells, "_clear", lambda found: not cleared.append(found))
    cells.Cells(tmp_path)._look()
    assert cells.clear(tmp_path)
    assert cleared == [root]
