"""What a process knows of tasks that it has just taken in, so that nobody need ask."""

import pytest

from banyan.server import waiting
from banyan.server.waiting import Hub


def test_a_new_task_is_known_until_it_is_signalled_again() -> None:
    hub = Hub()
    hub.watched = True
    hub.signal("task:1", version="v1")
    assert hub.is_new("task:1", "v1")
    assert not hub.is_new("task:1", "v0")
    hub.signal("task:1", observed=True)
    assert not hub.is_new("task:1", "v1")


def test_who_is_slow_to_say_that_a_task_is_new_is_not_believed() -> None:
    """Another may have claimed it, and ended it, and said so."""
    hub = Hub()
    hub.watched = True
    hub.signal("task:1")
    hub.signal("task:1", version="v1")
    assert not hub.is_new("task:1", "v1")


def test_nothing_is_known_to_be_new_while_others_are_not_heard() -> None:
    hub = Hub()
    hub.signal("task:1", version="v1")
    assert not hub.is_new("task:1", "v1")
    hub.watched = True
    assert hub.is_new("task:1", "v1")


def test_new_tasks_beyond_a_number_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_VERSIONS_MAX", 2)
    hub = Hub()
    hub.watched = True
    for number in range(3):
        hub.signal(f"task:{number}", version="v")
    assert [hub.is_new(f"task:{number}", "v") for number in range(3)] == [False, True, True]
