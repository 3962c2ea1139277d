"""What a server refuses of a task, told of the options of the command line."""

from typing import Any

import pytest

from banyan.cli.own_words import own_words
from banyan.errors import BanyanError


@pytest.mark.parametrize(
    ("issues", "told"),
    [
        ({"max_attempt_count": "max value is 9"}, {"--retries": "max value is 9"}),
        ({"labels": {"a b": ["no name"]}}, {"--label": {"a b": ["no name"]}}),
        (
            {"requested_resources": ["cores: too many; custom.x: must be a number"]},
            {"--cores": "too many", "--custom": "must be a number"},
        ),
        (
            {"requested_resources": "can't be changed while the task is running"},
            {"resources": "can't be changed while the task is running"},
        ),
        ({"0": {"tags": "no"}, "7": {"tags": "no"}}, {"--tag": "no"}),
        ({"what": "unknown"}, {"what": "unknown"}),
    ],
)
def test_issues_name_the_options(issues: dict[str, Any], told: dict[str, Any]) -> None:
    with pytest.raises(BanyanError) as caught, own_words():
        raise BanyanError("invalid", "nothing was stored", issues)
    assert caught.value.issues == told
