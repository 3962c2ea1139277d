"""What a false server says stays text in a notebook: there it would be a script of the page."""

import re
from typing import Any

import pytest

from banyan.client.api import Client
from banyan.client.futures import TaskFuture
from banyan.client.progress import Progress
from banyan.errors import BanyanError
from tests.client.scripted import Scripted, ok
from tests.client.scripted import server as server

EVIL = "<img src=x onerror='alert(1)'>\"&<script>"
OURS = {"div", "code", "span"}


def elements(html: str) -> set[str]:
    return set(re.findall(r"<\s*/?\s*([^\s>]*)", html))


@pytest.mark.parametrize("counted", [{EVIL: 1}, {"running": EVIL}, {"running": {EVIL: [EVIL]}}])
def test_what_a_client_shows_is_text(server: Scripted, counted: dict[str, Any]) -> None:
    server.replies = [ok({"by_state": counted})]
    with pytest.raises(BanyanError, match="is not the URL"):
        Client(f"{server.url}/{EVIL}", "t")
    with Client(server.url, "t") as client:
        html = client._repr_html_()
    assert elements(html) <= OURS, html
    assert "&lt;img" in html


@pytest.mark.parametrize(
    ("counted", "is_shown"),
    [
        ({"by_state": {EVIL: 1}}, True),
        ({"by_outcome": {"success": EVIL}}, False),
        ({"by_state": {"running": [EVIL]}}, False),
    ],
)
def test_progress_shows_numbers(server: Scripted, counted: dict[str, Any], is_shown: bool) -> None:
    server.replies = [ok(counted)]
    with Client(server.url, "t") as client:
        progress = Progress(client, {})
        if not is_shown:
            with pytest.raises(TypeError):  # what is no number cannot be counted
                progress._repr_html_()
            return
        html = progress._repr_html_()
    assert elements(html) <= OURS, html


def test_a_future_shows_text() -> None:
    html = TaskFuture(EVIL, EVIL, lambda _: False)._repr_html_()
    assert elements(html) <= OURS, html
    assert "&lt;img" in html
