"""What most tests of requests do: make a task, read it, and look at a refusal."""

from typing import Any

from bson import ObjectId

from tests.harness import Api

Item = dict[str, Any]


def new_id() -> str:
    """An id that nothing has."""
    return str(ObjectId())


def make(api: Api, **fields: Any) -> Item:
    """A new task; `command` is `true` unless the test says otherwise."""
    answer = api.post("tasks", {"command": "true", **fields})
    assert answer.status_code == 201, answer.text
    made: Item = answer.json()
    return made


def read(api: Api, task: Item | str) -> Item:
    """The task as it is now."""
    answer = api.get(f"tasks/{task if isinstance(task, str) else task['_id']}")
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


def refused(answer: Any, status: int, word: str | None = None) -> Item:
    """The `_issues` of a refusal in the one shape that all errors have."""
    assert answer.status_code == status, (answer.status_code, answer.text[:2000])
    body = answer.json()
    assert body["_status"] == "ERR"
    assert body["_error"]["code"] == status
    assert body["_error"]["message"]
    if word:
        assert body["_error"]["word"] == word
    issues: Item = body.get("_issues", {})
    return issues
