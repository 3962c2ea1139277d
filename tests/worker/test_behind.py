"""Which claimed task waits behind which running attempt."""

from banyan.worker.ahead import WINDOW_SECONDS
from banyan.worker.behind import DEPTH, Behind, Waiting


def behind(*lines: str) -> Behind:
    """Runners a, b, … of one kind, started at 0; each of `lines` waits behind its first letter."""
    made = Behind()
    for line in lines:
        made.started(line[0], "kind", 0)
        for attempt in line[1:]:
            made.add(line[0], Waiting(attempt, {}, 0))
    return made


def test_the_shortest_line_is_the_place() -> None:
    assert behind("axy", "bz", "cvw").room("kind", 0) == "b"
    assert behind("axy").room("another kind", 0) is None


def test_a_line_has_an_end() -> None:
    those = "bcdefghijklmnopqrstuvwxyz"
    assert behind("a" + those[: DEPTH - 1]).room("kind", 0) == "a"
    assert behind("a" + those[:DEPTH]).room("kind", 0) is None


def test_nothing_new_waits_behind_what_has_run_for_long() -> None:
    assert behind("a").room("kind", WINDOW_SECONDS) is None


def test_who_comes_next_comes_behind_the_last() -> None:
    made = behind("axy", "b")
    assert made.last_of("a") == "y"
    assert made.last_of("b") == "b"


def test_nothing_comes_behind_a_line_that_somebody_is_leaving() -> None:
    """The launcher may have started the one that was called back, or dropped it."""
    made = behind("ax")
    made.call_back(["x"])
    assert made.room("kind", 0) is None
    made.take_out("x")
    assert made.room("kind", 0) == "a"
    made.stop("a")
    assert made.room("kind", 0) is None
    made.ended("a", 0)
    made.started("a", "kind", 0)
    assert made.room("kind", 0) == "a"
    waiting = behind("bx")
    waiting.stop("x")
    assert waiting.room("kind", 0) is None


def test_who_was_next_runs_and_the_line_goes_on_behind_it() -> None:
    made = behind("axyz")
    assert made.ended("a", 7) == "x"
    assert made.of("x") == ["y", "z"]
    assert made.attempts == ["y", "z"]
    assert made.room("kind", 7) == "x"
    assert made.ended("x", 8) == "y"
    assert made.ended("y", 9) == "z"
    assert made.ended("z", 9) is None
    assert not made
    assert made.room("kind", 9) is None


def test_of_what_waits_an_end_is_no_turn_for_another() -> None:
    made = behind("axy")
    assert made.take_out("x").attempt == "x"
    assert made.ended("x", 1) is None
    assert made.ended("a", 1) == "y"


def test_who_comes_behind_one_that_waits_is_in_its_line() -> None:
    made = behind("ax")
    made.add("x", Waiting("y", None, 0))
    assert made.of("a") == ["x", "y"]


def test_each_is_called_back_once() -> None:
    made = behind("axy")
    assert made.call_back(["a", "x", "y", "unknown"]) == ["x", "y"]
    assert made.call_back(["x", "y"]) == []
    made.take_out("x")
    made.add("a", Waiting("x", {}, 0))
    assert made.call_back(["x"]) == ["x"], "it waits anew"


def test_the_last_of_the_longest_line_is_the_first_to_go_elsewhere() -> None:
    made = behind("ax", "byz")
    last = made.last()
    assert last is not None
    assert last.attempt == "z"
    made.call_back(["z"])
    last = made.last()
    assert last is not None
    assert last.attempt == "y"
    assert behind("a").last() is None
