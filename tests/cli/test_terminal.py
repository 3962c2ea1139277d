"""What of a task's output reaches a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.cli.terminal import Cleaner

ALPHABET = [b"\x1b", b"[", b"]", b"0", b";", b"m", b"H", b"\x07", b"\\", b"\xc2", b"\x9b", b"a"]
DATA = st.one_of(st.binary(), st.lists(st.sampled_from(ALPHABET)).map(b"".join))


def cleaned(*pieces: bytes) -> bytes:
    cleaner = Cleaner()
    return b"".join([*map(cleaner.feed, pieces), cleaner.rest()])


@pytest.mark.parametrize(
    "unsafe",
    [
        b"\x1b]0;title\x07",
        b"\x1b]52;c;ZXZpbA==\x1b\\",  # the clipboard
        b"\x1b[6n",  # makes the terminal type its cursor's place
        b"\x1b[2J\x1b[H",
        b"\x1bP$q\x1b\\",
        b"\x1b(0",
        b"\x1bc",
        b"\xc2\x9b6n",
        b"\x07\x08\x00\x7f",
    ],
)
def test_what_acts_on_a_terminal_is_taken_out(unsafe: bytes) -> None:
    shown = cleaned(b"before" + unsafe + b"after")
    assert shown.replace(b"6n", b"") == b"beforeafter"
    for place in range(1, len(unsafe)):
        assert cleaned(b"before" + unsafe[:place], unsafe[place:] + b"after") == shown


def test_text_and_colours_stay_and_a_colour_left_on_ends() -> None:
    assert cleaned("grün\tok\r\n".encode()) == "grün\tok\r\n".encode()
    assert cleaned(b"\x1b[1;31mred") == b"\x1b[1;31mred\x1b[0m"


@given(DATA)
def test_nothing_but_colours_gets_through(data: bytes) -> None:
    shown = cleaned(data)
    assert all(part[:1] == b"[" for part in shown.split(b"\x1b")[1:])
    assert not any(byte < 32 and byte not in b"\t\n\r\x1b" for byte in shown)


@given(DATA, st.integers(0, 20))
def test_how_the_output_is_cut_makes_no_difference(data: bytes, place: int) -> None:
    assert cleaned(data[:place], data[place:]) == cleaned(data)
