"""Spellings of bytes, durations and times: what is read, what is refused, what is written."""

import math
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.units import (
    LARGEST,
    format_bytes,
    format_duration,
    format_time,
    parse_bytes,
    parse_duration_milliseconds,
    parse_time,
)

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
# Text that looks right but for a detail finds more than text at random.
nearly = st.from_regex(r"[P0-9.:\-+TZ GiBkmshdMS,\n]{0,30}", fullmatch=True)
NO_NUMBERS: list[object] = [
    True, False, None, -1, 1.5, math.nan, math.inf, -math.inf, 2**53 + 1, 2**63, 1e19,
    [], {}, b"1 B",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (1024.0, 1024),
        (LARGEST, LARGEST),
        ("10 bytes", 10),
        ("1 byte", 1),
        ("7B", 7),
        ("1 GiB", 2**30),
        ("4GiB", 4 * 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("512 MB", 512_000_000),
        ("1 kB", 1000),
        ("1 KB", 1000),
        ("2 kib", 2048),
        ("3 TiB", 3 * 2**40),
        ("1 PiB", 2**50),
        ("1 tb", 10**12),
        ("1 PB", 10**15),
        ("64M", 64 * 2**20),
        ("1.5G", 3 * 2**29),
        ("8 g", 2**33),
        ("4Gi", 2**32),
        ("2k", 2048),
        ("1 T", 2**40),
        ("1Pi", 2**50),
        ("0.1 KiB", 103),  # 102.4: nobody gets less than asked
    ],
)
def test_bytes_are_read(text: object, size: int) -> None:
    assert parse_bytes(text) == size
    assert type(parse_bytes(text)) is int


@pytest.mark.parametrize(
    "text",
    [
        *NO_NUMBERS,
        "", "1", "GiB", "4 GiB\n", " 4 GiB", "4 GiB ", "4  GiB", "4\tGiB", "4\u00a0GiB",
        "\u0664 GiB", "-1 GiB", "+1 GiB", "1e3 B", "1,5 GiB", "1. GiB", ".5 GiB", "1.5.5 GiB",
        "0x10 B", "NaN B",
        "inf B", "1.5 bytes", "1 Gib s", "1 X", "1 i", "1 GiBs", "1 \u212a", "1 \u212aB",
        "1 byte\u017f", "9000 PiB ",
        "9000 PiB1", "8.1 PiB", "8192 PiB", "99999999999999999999 B",
    ],
)  # fmt: skip
def test_bytes_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"1\.5 GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        (0, 0),
        (250, 250),
        (LARGEST, LARGEST),
        ("10 minutes", 10 * MINUTE),
        ("1 minute", MINUTE),
        ("1h30m", 90 * MINUTE),
        ("1h 30m", 90 * MINUTE),
        ("1 day 2 hours", 26 * HOUR),
        ("500ms", 500),
        ("90 s", 90_000),
        ("2.5s", 2_500),
        ("1w", 7 * DAY),
        ("2 Hours", 2 * HOUR),
        ("PT10M", 10 * MINUTE),
        ("P1DT2H", 26 * HOUR),
        ("P2W", 14 * DAY),
        ("PT0.5S", 500),
        ("PT36H", 36 * HOUR),
        ("00:10:00", 10 * MINUTE),
        ("100:00:00", 100 * HOUR),
        ("00:00:01.5", 1_500),
        ("2-01:00:00", 2 * DAY + HOUR),
    ],
)
def test_durations_are_read(text: object, milliseconds: int) -> None:
    assert parse_duration_milliseconds(text) == milliseconds
    assert type(parse_duration_milliseconds(text)) is int


@pytest.mark.parametrize(
    "text",
    [
        *NO_NUMBERS,
        "", "10", "minutes", "10 minutes\n", " 10 minutes", "10 minutes ", "10  minutes", "1h  30m",
        "30m1h", "1h1h", "1h 30", "-10 minutes", "1.5ms", "1 month", "1 year", "\u0661 h",
        "10 m\u017f", "P", "PT", "P1DT", "P1M", "P1Y", "PT1M1H", "T10M", "PT10M\n",
        "-PT10M", "P1D2H",
        "00:60:00", "00:00:60", "0:1:00", "10:00", "00:10:00\n", "99999999999999999 weeks",
        "1" * 100 + "h", "1h" * 10_000,
    ],
)  # fmt: skip
def test_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="PT10M"):
        parse_duration_milliseconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T06:51:14.123456Z", "2026-11-22T06:51:14.123Z"),
        ("2026-11-22T06:51:14.9999999Z", "2026-11-22T06:51:14.999Z"),
        ("2026-11-22T06:51:14.5Z", "2026-11-22T06:51:14.500Z"),
        ("2026-11-22T06:51:14z", "2026-11-22T06:51:14.000Z"),
        ("2026-11-22T06:51:14+01:30", "2026-11-22T05:21:14.000Z"),
        ("2026-11-22T06:51:14-0100", "2026-11-22T07:51:14.000Z"),
        ("2026-11-22T06:51:14+01", "2026-11-22T05:51:14.000Z"),
        ("2026-11-22T06:51:14", "2026-11-22T06:51:14.000Z"),
        ("2026-11-22 06:51", "2026-11-22T06:51:00.000Z"),
        ("2026-11-22", "2026-11-22T00:00:00.000Z"),
        ("Sun, 22 Nov 2026 10:00:00 GMT", "2026-11-22T10:00:00.000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 678_901), "2026-01-02T03:04:05.678Z"),
        (
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:04:05.000Z",
        ),
    ],
)
def test_times_are_read_and_written(text: object, expected: str) -> None:
    read = parse_time(text)
    assert read.tzinfo is UTC
    assert format_time(read) == expected
    assert parse_time(expected) == read


def test_a_time_without_offset_is_utc_wherever_the_machine_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
        assert parse_time("2026-01-02T12:00:00") == parse_time(noon.replace(tzinfo=None)) == noon
        assert format_time(noon.replace(tzinfo=None)) == "2026-01-02T12:00:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "", "now", 0, 1.5, True, None, [], "2026-11-22T06:51:14Z\n", " 2026-11-22", "2026-02-30",
        "2026-13-01", "0000-01-01", "10000-01-01", "2026-11-22T24:00:00Z", "2026-11-22T06:60:00Z",
        "2026-11-22T06:51:60Z", "2026-11-22T06:51:14+25:00", "2026-11-22T06:51:14+01:60",
        "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2026-W01-1", "20261122",
        "\u0662026-11-22", "Sun, 31 Feb 2026 10:00:00 GMT", "Sun, 22 Nov 2026 10:00:00 CET",
        "22 Nov 2026 10:00:00 GMT", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)  # fmt: skip
def test_times_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="2026-11-22T10:00:00Z"):
        parse_time(text)


@given(anything | nearly)
def test_nothing_but_a_value_error_comes_of_anything(value: object) -> None:
    for parse in (parse_bytes, parse_duration_milliseconds):
        with suppress(ValueError):
            assert 0 <= parse(value) <= LARGEST
    with suppress(ValueError):
        assert parse_time(value).microsecond % 1000 == 0


@given(st.integers(0, LARGEST))
def test_a_duration_written_and_read_is_the_same(milliseconds: int) -> None:
    assert parse_duration_milliseconds(format_duration(milliseconds)) == milliseconds


@given(st.integers(0, LARGEST))
def test_bytes_written_and_read_are_nearly_the_same(size: int) -> None:
    again = parse_bytes(format_bytes(size))
    assert abs(again - size) <= size * 0.0051 + 1


@given(st.datetimes())
def test_a_time_written_and_read_is_the_same(naive: datetime) -> None:
    read = parse_time(naive)
    assert parse_time(format_time(read)) == read
    assert timedelta(0) <= naive.replace(tzinfo=UTC) - read < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (2**30, "1 GiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**30 - 1, "1 GiB"),
        (10 * 2**30, "10 GiB"),
        (100 * 2**20, "100 MiB"),
        (5 * 2**50, "5 PiB"),
    ],
)
def test_bytes_are_written(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (500, "500ms"),
        (2_500, "2.5s"),
        (10_000, "10s"),
        (90 * MINUTE, "1h 30m"),
        (DAY + 1, "1d 0.001s"),
    ],
)
def test_durations_are_written(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text
