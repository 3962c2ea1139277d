"""How far tasks are, drawn in a notebook and told in a line elsewhere; the server is a real one."""

import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from banyan import Client, Executor
from banyan.client.progress import Progress, grouped, html
from banyan.errors import BanyanError
from tests.contract.playing import Play, Player
from tests.harness import Server, eventually


class Notebook:
    """What IPython gives a program: a place that is drawn into, and drawn over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **shell: Any) -> None:
        self.drawn: list[str] = []
        self.displays = 0
        display = types.SimpleNamespace(HTML=str, display=self._display)
        told = types.SimpleNamespace(**shell)
        ipython = types.SimpleNamespace(get_ipython=lambda: told, display=display)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def _display(self, html: str, display_id: bool) -> "Notebook":
        assert display_id
        self.displays += 1
        self.drawn.append(html)
        return self

    def update(self, html: str) -> None:
        self.drawn.append(html)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, server.tokens["provider"]) as made:
        yield made


@pytest.fixture
def play(server: Server) -> Play:
    return Play(server)


def end_all(player: Player, count: int) -> None:
    for item in player.claim(count):
        assert player.end(item).status_code == 200


def test_a_picture_is_of_now(client: Client, play: Play):
    ids = play.submit(4)
    progress = client.progress({"queue": play.queue})
    assert str(progress) == "0 of 4 ended: 4 waiting"
    end_all(play.player(), 3)
    assert progress.counts() == grouped(
        {"by_state": {"available": 1, "terminated": 3}, "by_outcome": {"success": 3}}
    )
    assert "3 of 4 ended: 3 succeeded, 1 waiting" in progress._repr_html_()
    assert "width:75%" in progress._repr_html_()
    assert str(client.progress(ids[:2])) == "2 of 2 ended: 2 succeeded"
    with pytest.raises(BanyanError, match="tag"):
        client.progress(["0" * 24] * 201)


def test_a_notebook_is_drawn_over_until_all_have_ended(
    client: Client, play: Play, monkeypatch: pytest.MonkeyPatch
):
    notebook = Notebook(monkeypatch, kernel=object())
    play.submit(2)
    progress = client.progress({"queue": play.queue}).show()
    assert progress.show() is progress  # drawn already
    eventually(lambda: len(notebook.drawn) >= 2)  # the thread has asked, and waits for a change
    end_all(play.player(), 2)
    eventually(lambda: "2 of 2 ended: 2 succeeded" in notebook.drawn[-1])
    eventually(lambda: not _is_drawn(progress))
    assert notebook.displays == 1
    assert "0 of 2 ended: 2 waiting" in notebook.drawn[0]


def _is_drawn(progress: Progress) -> bool:
    return progress._thread is not None and progress._thread.is_alive()


def test_a_program_that_waits_is_told_in_lines(
    client: Client, play: Play, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    Notebook(monkeypatch)  # IPython in a terminal has no kernel
    play.submit(2)
    progress = client.progress({"queue": play.queue})
    with pytest.raises(TimeoutError):
        progress.wait(timeout_seconds=0.1)
    ending = threading.Thread(target=end_all, args=[play.player(), 2])
    ending.start()
    assert progress.wait(timeout_seconds=60)["succeeded"] == 2
    ending.join()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 2 ended: 2 waiting"
    assert lines[-1] == "2 of 2 ended: 2 succeeded"


def test_an_executor_shows_its_own_tasks_and_those_that_are_still_to_come(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
):
    notebook = Notebook(monkeypatch, kernel=object())
    with Executor(client) as executor:
        progress = executor.progress().show()
        assert "0 of 0 ended" in notebook.drawn[0]
        future = executor.submit(["true"])
        eventually(lambda: "0 of 1 ended: 1 waiting" in notebook.drawn[-1])
        future.cancel()
        eventually(lambda: "1 of 1 ended: 1 cancelled" in notebook.drawn[-1])
        assert _is_drawn(progress)  # more may come
        progress.stop()


def test_a_picture_holds_no_text_of_others():
    drawn = html({"succeeded": 0, "failed": 0, "cancelled": 0, "running": 0, "waiting": 0})
    assert "0 of 0 ended" in drawn
    assert "<span" not in drawn
