"""Deadlines, and who descends from whom."""

import os
import threading

from hypothesis import given
from hypothesis import strategies as some

from banyan.worker import tree
from banyan.worker.timers import Timers


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(0, 50), some.booleans())))
def test_the_next_deadline_is_the_least_that_stands(steps: list[tuple[int, int, bool]]):
    timers, model = Timers(), dict[int, float]()
    for key, when, drop in steps:
        if drop:
            timers.drop(key)
            model.pop(key, None)
        else:
            timers.set(key, when)
            model[key] = when
        assert timers.next() == min(model.values(), default=None)
        assert len(timers._heap) <= 2 * len(model) + 66
    due = set(timers.due(25))
    assert due == {key for key, when in model.items() if when <= 25}


def test_children_are_found_with_and_without_the_kernel_s_list():
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    found: list[int] = []
    try:
        for find in (tree._children_listed, tree._children_by_scan):
            assert pid in find(os.getpid())
            assert find(pid) == []
        arguments = ("/bin/sleep", ["sleep", "1000"], {})
        thread = threading.Thread(target=lambda: found.append(os.posix_spawn(*arguments)))
        thread.start()
        thread.join()
        assert found[0] in tree.children(os.getpid()), "a child of another thread too"
    finally:
        for one in (pid, *found):
            os.kill(one, 9)
            os.waitpid(one, 0)


def test_a_process_that_is_gone_has_no_relatives():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    assert not tree.ended(os.getpid())
    os.waitpid(pid, 0)
    assert tree.children(pid) == []
    assert tree.ended(pid)
    assert tree.birth_of(pid) == (0, 0, 0)
    assert tree.user_group_of(pid) == 0
    assert tree.variables_of(pid, ["PATH"]) == ({}, 0)
