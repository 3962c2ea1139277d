"""Which workers a command means, of those that are there and those that are lost."""

from typing import Any, cast

import pytest

from banyan.cli.top import in_order
from banyan.cli.workers import _find
from banyan.client.api import Client
from banyan.errors import BanyanError

LOST = {"_id": "1111" + "0" * 20, "host": "rack7", "mode": "lost"}
LIVE = {"_id": "2222" + "0" * 20, "host": "rack7", "mode": "active"}
AWAY = {"_id": "3333" + "0" * 20, "host": "rack8", "mode": "lost"}


class Known:
    def workers(self) -> list[dict[str, Any]]:
        return [AWAY, LOST, LIVE]


CLIENT = cast(Client, Known())


def test_a_host_means_those_that_are_heard() -> None:
    assert _find(CLIENT, ("rack7",)) == [LIVE["_id"]]
    assert _find(CLIENT, ("2222",)) == [LIVE["_id"]]
    assert _find(CLIENT, ("rack7", "rack8"), gone_too=True) == [
        LOST["_id"], LIVE["_id"], AWAY["_id"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [("rack8", "is lost"), ("1111", "is lost"), ("rack9", "you have no worker rack9")],
)
def test_whom_nobody_hears_is_told_as_that(text: str, said: str) -> None:
    with pytest.raises(BanyanError, match=said):
        _find(CLIENT, (text,))


def test_those_that_are_lost_come_last() -> None:
    assert in_order([AWAY, LOST, LIVE]) == [LIVE, LOST, AWAY]
