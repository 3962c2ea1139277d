"""What a server says is wrong with a task, in the words of the command line.

Used by the commands that send fields of tasks.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from banyan.errors import BanyanError

# A task's field -> the option for it.
_OPTION_OF = {
    "labels": "--label",
    "tags": "--tag",
    "after": "--after",
    "after_failure": "--after-fail",
    "after_any": "--after-any",
    "env": "--env",
    "command": "COMMAND",
    "max_attempt_count": "--retries",
    "retry_delay_milliseconds": "--retry-delay",
    "timeout_milliseconds": "--timeout",
    "max_shutdown_time_milliseconds": "--grace",
    **{name: f"--{name.replace('_', '-')}" for name in (
        "name", "queue", "priority", "cwd", "not_before", "retain", "dedupe_key",
    )},
}  # fmt: skip

_OPTION_OF_RESOURCE = {
    "cpu_cores": "--cores",
    **{name: f"--{name}" for name in ("cores", "memory", "gpus", "disk", "custom")},
}


@contextlib.contextmanager
def own_words() -> Iterator[None]:
    """What a server says is wrong with a task's fields is told of the options."""
    try:
        yield
    except BanyanError as error:
        if error.issues:
            items = [error.issues]
            if all(name.isdecimal() for name in error.issues):  # of a list, by their indexes
                items = [one for one in error.issues.values() if isinstance(one, dict)]
            error.issues = {}
            for one in items:
                error.issues.update(_of_options(one))
        raise


def _of_options(issues: Mapping[str, Any]) -> dict[str, Any]:
    """The members of one sweep mostly have the same issues: they are told once."""
    told: dict[str, Any] = {}
    for name, issue in issues.items():
        if name == "requested_resources":
            told.update(_of_resources(issue))
        else:
            told[_OPTION_OF.get(name, name)] = issue
    return told


def _of_resources(issue: Any) -> dict[str, Any]:
    """They are told in one text: "gpus: must be ...; custom.a: must be ..."."""
    told: dict[str, Any] = {}
    for text in issue if isinstance(issue, list) else [issue]:
        for part in str(text).split("; "):
            name, _, said = part.partition(": ")
            option = _OPTION_OF_RESOURCE.get(name.partition(".")[0])
            told[option or "resources"] = said if option else part
    return told
