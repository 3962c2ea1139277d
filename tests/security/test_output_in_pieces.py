"""A task that writes byte by byte, now here, now there: what it costs stays in proportion."""

import base64
import threading
from pathlib import Path
from typing import Any

import pytest

from banyan.worker import reports, spool
from banyan.worker.mailbox import Mailbox
from banyan.worker.output import Reader
from banyan.worker.reports import ITEMS_MAX, Reports
from banyan.worker.spool import FRAMES_AT_ONCE, STDERR, STDOUT, Chunk, Spool, chunks

END = {
    "state": "terminated", "exit_status": "success", "time_terminated": "2026-11-22T00:00:00.000Z",
}  # fmt: skip


# --- What the launcher keeps --------------------------------------------------------------


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the spool, to be set."""
    time = [1000.0]
    monkeypatch.setattr(spool, "now", lambda: time[0])
    return time


def alternate(target: Spool, count: int) -> None:
    for number in range(count):
        target.add(STDOUT, b"%d" % (number % 10))
        target.add(STDERR, b"abcdefghij"[number % 10 : number % 10 + 1])


def written(path: Path) -> list[Chunk]:
    return list(chunks(path.read_bytes()))


def joined(found: list[Chunk], stream: int) -> bytes:
    return b"".join(one.data for one in found if one.stream == stream)


@pytest.mark.usefixtures("still")
def test_single_bytes_of_two_streams_become_few_frames(tmp_path: Path):
    target = Spool(str(tmp_path / "out"), 1 << 20)
    for _ in range(20):
        alternate(target, 5000)
        target.flush()
    found = written(tmp_path / "out")
    assert len(found) <= FRAMES_AT_ONCE + 2 * 20
    assert joined(found, STDOUT) == b"0123456789" * 10_000
    assert joined(found, STDERR) == b"abcdefghij" * 10_000


def test_who_goes_from_one_stream_to_the_other_now_and_then_keeps_the_order(
    tmp_path: Path, still: list[float]
):
    target = Spool(str(tmp_path / "out"), 1 << 20)
    for _ in range(20):
        alternate(target, 20)
        target.flush()
        still[0] += 5
    assert b"".join(one.data for one in written(tmp_path / "out")) == b"0a1b2c3d4e5f6g7h8i9j" * 40


@pytest.mark.usefixtures("still")
def test_a_short_frame_counts_for_more_than_its_bytes(tmp_path: Path):
    target = Spool(str(tmp_path / "out"), 128_000)
    for _ in range(2000):
        alternate(target, 1)
        target.flush()
    target.finish()
    found = written(tmp_path / "out")
    assert 900 < len(found) <= 1001
    assert sum(one.data.startswith(b"\n[banyan: the log is full") for one in found) == 2


# --- What the agent reports ---------------------------------------------------------------


class Talk:
    """Attempts that have output in single bytes, or an end, and the reports about them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reports = Reports(threading.Condition(threading.RLock()), Mailbox())

    def talks(self, name: str, count: int, data: bytes = b"x") -> None:
        frames = bytearray()
        for number in range(count):
            frames += spool._HEADER.pack(STDOUT + number % 2, len(data)) + data
        (self.directory / name).write_bytes(frames)
        self.follow(name)
        self.reports.output(name)

    def follow(self, name: str) -> None:
        self.reports.follow(name, f"task {name}", "token", Reader(self.directory / name))

    def ends(self, name: str, inline: bytes | None = None) -> None:
        self.reports.ended(name, END, inline and base64.b64encode(inline).decode(), 0)

    def report(self) -> list[reports.Part]:
        parts = self.reports.gather().parts
        self.reports.settle(parts, [{} for _ in parts])
        return parts


def chunks_in(parts: list[reports.Part]) -> int:
    return sum(len(part.item["update_execution_data"].get("log", ())) for part in parts)


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    return Talk(tmp_path)


def test_a_report_has_few_chunks_however_many_attempts_there_are(talk: Talk):
    for number in range(100):
        talk.talks(str(number), 1000)
    parts = talk.report()
    assert 500 < chunks_in(parts) <= 1000
    told = {part.attempt for part in parts}
    for _ in range(6):  # everybody's turn comes
        told |= {part.attempt for part in talk.report()}
    assert len(told) == 100


def test_ends_go_before_the_output_of_others(talk: Talk):
    for number in range(100):
        talk.talks(f"loud {number}", 5000)
    names = [f"short {number}" for number in range(50)]
    for name in names:
        talk.follow(name)
        talk.ends(name, inline=b"\1\0\0\0\5hello")
    talk.talks("of some", 10)
    talk.ends("of some")
    parts = talk.report()
    assert {part.attempt for part in parts if part.ends} == {*names, "of some"}
    assert chunks_in(parts) > 500


def test_an_end_with_much_output_waits_for_others_no_more_than_they_for_it(talk: Talk):
    for number in range(50):
        talk.talks(f"long {number}", 100, b"x" * 100_000)
        talk.ends(f"long {number}")
    ended: list[str] = []
    while len(ended) < 50:
        parts = talk.report()
        assert sum(len(one["data"]) for p in parts for one in log_of(p)) < 8 << 20
        ended += [part.attempt for part in parts if part.ends]
        if not ended:
            talk.follow("short")
            talk.ends("short")
            assert "short" in [part.attempt for part in talk.report()]


def log_of(part: reports.Part) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = part.item["update_execution_data"].get("log", [])
    return found


def test_output_comes_through_while_ends_never_cease(talk: Talk):
    talk.talks("loud", 10)
    for number in range(2 * ITEMS_MAX):
        talk.follow(str(number))
        talk.ends(str(number))
    parts = talk.report()
    assert len(parts) == ITEMS_MAX
    assert "loud" in [part.attempt for part in parts]


def test_all_output_comes_in_order_however_it_is_shared(talk: Talk):
    for number in range(30):
        talk.talks(str(number), 400, b"%d" % number)
        talk.ends(str(number))
    found = dict.fromkeys(map(str, range(30)), b"")
    ended: set[str] = set()
    while len(ended) < 30:
        for part in talk.report():
            assert part.attempt not in ended
            for one in log_of(part):
                assert one["offset"] == len(found[part.attempt])
                found[part.attempt] += base64.b64decode(one["data"])
            if part.ends:
                ended.add(part.attempt)
    assert all(found[name] == name.encode() * 400 for name in found)
