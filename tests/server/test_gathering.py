"""What several threads want at one moment is done at once; each gets its own."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from banyan.server.gathering import Gathering, _Asked, _Place
from tests.harness import eventually

SOON = 30.0


class Work:
    """Doubles what is wanted; its groups can be held up."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, wants: Sequence[int]) -> list[int]:
        self.groups.append(list(wants))
        self.begun.release()
        assert self.go_on.wait(SOON)
        if 13 in wants:
            raise ValueError("13")
        return [2 * want for want in wants]


@pytest.fixture
def work() -> Work:
    return Work()


def while_one_is_in_work(work: Work, wants: Sequence[int]) -> list["Future[int]"]:
    """These are wanted, one after the other, while the group of the first is held up."""
    gathering = Gathering(work)
    pool = ThreadPoolExecutor(len(wants))
    asked = [pool.submit(gathering.get, "here", wants[0])]
    assert work.begun.acquire(timeout=SOON)
    for number, want in enumerate(wants[1:], 1):
        asked.append(pool.submit(gathering.get, "here", want))
        eventually(lambda number=number: len(gathering.waiting("here")) == number)
    work.go_on.set()
    pool.shutdown()
    return asked


def test_who_is_alone_does_its_own(work: Work) -> None:
    work.go_on.set()
    gathering = Gathering(work)
    assert [gathering.get("here", want) for want in (1, 2)] == [2, 4]
    assert work.groups == [[1], [2]]


def test_those_who_come_meanwhile_are_one_group_in_their_order(work: Work) -> None:
    asked = while_one_is_in_work(work, [1, 5, 3, 4])
    assert [one.result() for one in asked] == [2, 10, 6, 8]
    assert work.groups == [[1], [5, 3, 4]]


def test_an_error_is_everybodys_of_its_group_and_of_no_other(work: Work) -> None:
    asked = while_one_is_in_work(work, [1, 13, 2])
    assert asked[0].result() == 2
    for one in asked[1:]:
        with pytest.raises(ValueError, match="13"):
            one.result()


def test_one_place_does_not_wait_for_another(work: Work) -> None:
    gathering = Gathering(work)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(gathering.get, place, 1) for place in ("here", "there")]
        for _ in asked:
            assert work.begun.acquire(timeout=SOON)
        work.go_on.set()
        assert [one.result() for one in asked] == [2, 2]


def test_who_was_left_over_and_comes_back_late_is_worked_for_once() -> None:
    """Another thread has taken it into its group meanwhile."""
    place: _Place[str, str] = _Place()
    early: _Asked[str, str] = _Asked("early", None)
    late: _Asked[str, str] = _Asked("late", None)
    place.ask(early)
    place.leave(place.enter(early))  # which has found nothing for it
    place.ask(late)
    group = place.enter(late)
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(place.enter, early)
        for asked in group:
            asked.found.append("found")
        place.leave(group)
        assert back.result(SOON) == []
    assert group == [early, late]
    assert place.waiting == []
