"""Every parser of strangers' text, on generated input: `targets.py` says what may come out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.fuzz.words import WORDS


def made_of(words: list[str]) -> st.SearchStrategy[bytes]:
    """Mostly pieces that mean something in this order or that, seldom anything."""
    pieces = st.lists(st.sampled_from(words) | st.text(max_size=2), max_size=12)
    return pieces.map(lambda found: "".join(found).encode("utf-8", "surrogatepass")) | st.binary()


def test_every_target_has_words() -> None:
    assert TARGETS.keys() == WORDS.keys()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whatever_comes_in(name: str) -> None:
    @settings(max_examples=150, deadline=None)
    @given(made_of(WORDS[name]))
    def try_it(data: bytes) -> None:
        TARGETS[name](data)

    try_it()
