"""`::progress` lines are found however the output is cut."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.worker.progress import ProgressLines


def read(*pieces: bytes) -> Any:
    lines = ProgressLines()
    for piece in pieces:
        lines.feed(piece)
    lines.finish()
    return lines.value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"::progress 40/100 epoch 4", {"done": 40, "total": 100, "message": "epoch 4"}),
        (b"::progress 40", {"done": 40}),
        (b"::progress 0.25 half of a half", {"done": 0.25, "message": "half of a half"}),
        (b"::progress 1 / 3\r", {"done": 1, "total": 3}),
        (b"::progress 1/3 \xff", {"done": 1, "total": 3, "message": "\ufffd"}),
        (b"::progress", None),
        (b"::progress one", None),
        (b"::progress 1/", None),
        (b"::progress 1e999", None),
        (b"x::progress 1", None),
        (b"", None),
    ],
)
def test_a_line_is_read(line: bytes, value: Any):
    assert read(line) == value
    assert read(b"before\n" + line + b"\nafter\n") == value


def test_a_line_that_has_not_ended_is_not_read():
    lines = ProgressLines()
    lines.feed(b"::progress 1")
    assert lines.value is None
    lines.feed(b"7\n")
    assert lines.value == {"done": 17}


def test_an_unreadable_line_leaves_what_was_said_before():
    assert read(b"::progress 1\n::progress x\n") == {"done": 1}


def test_a_line_without_an_end_is_not_kept():
    lines = ProgressLines()
    lines.feed(b"::progress 1")
    for _ in range(100):
        lines.feed(b"x" * 1000)
    assert len(lines._tail) < 3000
    lines.feed(b"\n")
    assert lines.value is None


@given(st.data())
def test_where_the_output_is_cut_changes_nothing(data: st.DataObject):
    said = data.draw(st.lists(st.sampled_from([b"::progress 1/9 a", b"::pro", b"", b"y ", b"::"])))
    text = b"\n".join([*said, b"::progress 7", b"rest"])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(*pieces) == {"done": 7}
