"""What of a task's output reaches a terminal."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banyan.cli.terminal import Cleaner

ALPHABET = [
    b"\x1b", b"[", b"]", b"0", b";", b"m", b"H", b"\x07", b"\\", b"\xc2", b"\x9b", b"a",
    b"\0", b"\x7f", b"\xc3", b"\xa9", b"\x1b[0m", b"\x1b]x\x07",
]  # fmt: skip
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
        b"\xc2\x00\x7f\xc2\x9b6n",
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


COLOUR = re.compile("\x1b\\[[0-9;:]*m")


@pytest.mark.parametrize(
    "joined",
    [b"A\xc2\0\x9b2JB", b"A\xc2\x7f\x9b2J", b"\xc2\x1b[H\x9b6n", b"\xc2\x1b]0;x\x07\x9d0;x\x07",
     b"\xc2\xc2\0\x9b\0\x9b", b"\xc2\x1b[0m\x9b2J"],
)  # fmt: skip
def test_what_is_taken_out_joins_nothing(joined: bytes) -> None:
    for place in range(len(joined)):
        assert controls(cleaned(joined[:place], joined[place:])) == set()


@given(st.lists(DATA))
def test_no_control_gets_through_however_the_output_is_cut(pieces: list[bytes]) -> None:
    assert controls(cleaned(*pieces)) == set()


def controls(shown: bytes) -> set[str]:
    """What of it would act on a terminal, but for colours and lines."""
    text = COLOUR.sub("", shown.decode(errors="replace"))
    return {one for one in text if unicodedata.category(one) == "Cc"} - set("\t\n\r")


@given(DATA, st.integers(0, 20))
def test_how_the_output_is_cut_makes_no_difference(data: bytes, place: int) -> None:
    assert cleaned(data[:place], data[place:]) == cleaned(data)
