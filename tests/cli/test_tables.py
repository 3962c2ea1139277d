"""Which columns of a table a terminal of some width shows, and how wide."""

import io
import sys

import pytest

from banyan.cli.ls import _TITLES as LISTED
from banyan.cli.show import _TITLES as ATTEMPTS
from banyan.cli.tables import fitted, print_table
from banyan.cli.top import _TITLES as TOP
from banyan.cli.workers import _TITLES as WORKERS

NEVER_CUT = {"ID", "STATE", "HOST", "WORKER", "MODE", "INDEX", "EXIT STATUS", "ATTEMPT"}
ALWAYS_THERE = {"ID", "STATE", "HOST", "MODE", "INDEX", "EXIT STATUS", "ATTEMPT"}
WIDTHS = {
    "ID": 24, "WORKER": 24, "INDEX": 5, "NAME": 40, "STATE": 9, "HOST": 14, "MODE": 8, "QUEUE": 7,
    "CORES": 5, "MEMORY": 14, "ATTEMPTS": 8, "AGE": 3, "PROGRESS": 30, "RESULT": 1_000_000,
    "COMMAND": 120, "GPUS": 4, "QUEUES": 30, "TASKS": 5, "BEAT": 7, "ATTEMPT": 7,
    "EXIT STATUS": 17, "CLAIMED": 8, "TOOK": 8, "PEAK MEMORY": 11, "REASON": 90,
}  # fmt: skip


def shown(titles: tuple[str, ...], room: int, **widths: int) -> dict[str, int]:
    every = {**WIDTHS, **widths}
    places = fitted(titles, [every[title] for title in titles], room)
    return {titles[place]: width for place, width in places.items()}


@pytest.mark.parametrize("room", [20, 40, 80, 132, 200])
@pytest.mark.parametrize("titles", [LISTED, WORKERS, TOP, ATTEMPTS])
def test_ids_states_and_hosts_are_never_cut(titles: tuple[str, ...], room: int) -> None:
    got = shown(titles, room)
    for title in NEVER_CUT & got.keys():
        assert got[title] == WIDTHS[title]
    assert set(titles) & ALWAYS_THERE <= got.keys()
    if room >= 80:
        assert sum(got.values()) + 2 * (len(got) - 1) <= room


def test_the_least_worthy_columns_go_first_and_long_texts_are_shortened_before() -> None:
    assert shown(("ID", "NAME", "COMMAND"), 80) == {"ID": 24, "NAME": 26, "COMMAND": 26}
    at_80 = shown(LISTED, 80)
    assert {"ID", "NAME", "STATE"} <= at_80.keys()
    assert {"MEMORY", "QUEUE", "ATTEMPTS", "CORES"}.isdisjoint(at_80)
    at_200 = shown(LISTED, 200)
    assert at_200.keys() == set(LISTED)
    assert at_200["COMMAND"] > 16


def test_what_has_room_is_whole() -> None:
    assert shown(LISTED, 2_000_000) == {title: WIDTHS[title] for title in LISTED}
    assert shown(("ID", "CORES", "COMMAND"), 80, COMMAND=20)["COMMAND"] == 20


def test_a_column_that_others_need_whole_stays_whole() -> None:
    titles, widths = ("ID", "NAME", "ROLES", "AGE"), [24, 60, 30, 3]
    assert fitted(titles, widths, 80, whole=["NAME"]) == {0: 24, 1: 60}


def test_a_pipe_has_everything_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setenv("COLUMNS", "20")
    print_table(
        ("ID", "STATE", "COMMAND"), [("6" * 24, "success", "x" * 300)], {"STATE": ["success"]}
    )
    title, row = pipe.getvalue().splitlines()
    assert title.split() == ["ID", "STATE", "COMMAND"]
    assert row == f"{'6' * 24}  success  {'x' * 300}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(
    monkeypatch: pytest.MonkeyPatch, columns: int, titles: tuple[str, ...], row: tuple[str, ...]
) -> str:
    """A table of one row, as a terminal of so many columns gets it."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    print_table(titles, [row])
    return terminal.getvalue()


def test_titles_and_cells_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have named them: a link would lead anywhere, a lone end tag end the command."""
    titles = ("ID", "[/]", "[link http://evil.example]a[/]", "[conceal]b[/]", ":skull:")
    told = drawn(monkeypatch, 200, titles, ("1", "[/]", "[bold]", ":skull:", "x"))
    for text in (*titles, "[bold]"):
        assert text in told
    assert "\33]" not in told, "no link"


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_a_terminal_gets_no_line_that_hides_an_id(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    row = ("6" * 24, "名" * 20, "pending_cancellation", "machine.of.a.long.name", "x" * 300)
    told = drawn(monkeypatch, columns, ("ID", "NAME", "STATE", "HOST", "COMMAND"), row)
    for whole in (row[0], row[2], row[3]):
        assert whole in told
    assert ("x" * 16 in told) == (columns == 200)
