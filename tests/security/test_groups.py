"""`--run-as`: the group of an attempt is its own for good.

A set-group-ID program that an attempt leaves behind keeps the group. Whoever has that group later
could be looked into by it.
"""

import os

import pytest

from banyan.worker import tree
from banyan.worker.groups import COUNT, FIRST, Groups
from banyan.worker.orphans import Orphans
from banyan.worker.process_reader import ProcessReader
from tests.worker.launched import Launched
from tests.worker.test_run_as import needs_root, nobody


@needs_root
def test_a_process_id_that_comes_again_brings_no_group_again(launcher: Launched) -> None:
    found = set()
    for _ in range(8):
        _, output = launcher.run("echo $$; id -g", user=nobody())
        pid, group = map(int, output.split())
        assert FIRST <= group < FIRST + COUNT
        assert group - FIRST != pid
        found.add(group - pid)
    assert len(found) == 8, "nothing of it follows from the process id"


def test_a_group_in_use_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([7, 7, COUNT + 7, 8])
    monkeypatch.setattr(os, "urandom", lambda size: next(drawn).to_bytes(size))
    groups = Groups()
    assert [groups.draw("a"), groups.draw("b")] == [FIRST + 7, FIRST + 8]
    groups.keep({"b"})
    assert [groups.attempt_of(FIRST + each) for each in (7, 8, COUNT)] == ["", "b", None]


def test_what_has_the_group_of_no_living_attempt_is_nobodys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where its process id would say another attempt."""
    child = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    try:
        orphans = Orphans(lambda pid: None, ProcessReader())
        group = orphans.groups.draw("a")
        monkeypatch.setattr(tree, "user_group_of", lambda pid: group)
        monkeypatch.setattr(tree, "own_children", lambda: [child])
        orphans.look({}, ["a", "b"], False)
        assert orphans.of_nobody(["b"]) == [child]
        assert orphans.surely_of("a") == [child]
        late = Orphans(lambda pid: None, ProcessReader())
        late.look({group - FIRST: "a"}, ["a"], False)
        assert late.of_nobody(["a"]) == [child]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
