"""Contract §1: a task's fields, who sets them, when, and what is refused."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.contract.asking import make, new_id, read, refused
from tests.contract.playing import Play, now
from tests.contract.playing import play as play
from tests.harness import Api, Server

CHANGEABLE: dict[str, tuple[Any, Any]] = {
    "name": ("a", "b"),
    "command": ("true", ["echo", "two words"]),
    "requested_resources": ({"cores": 1}, {"cores": 2}),
    "queue": ("one", "two"),
    "labels": ({"zone": "a"}, {"zone": "b"}),
    "priority": (1, 2),
    "tags": ({"who": "a"}, {"who": "b"}),
    "env": ({"A": "1"}, {"B": "2"}),
    "cwd": ("/", "/srv"),
    "not_before": ("2026-01-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"),
    "max_attempt_count": (1, 2),
    "retry_delay_milliseconds": (0, 5),
    "retry_backoff": (1, 2.5),
    "max_lost_count": (3, 0),
    "timeout_milliseconds": (1000, None),
    "max_shutdown_time_milliseconds": (0, 1),
    "estimated_runtime_milliseconds": (1, 2),
}  # fmt: skip
DURATIONS = [name for name in CHANGEABLE if name.endswith("_milliseconds")]
READ_ONLY = [
    "owner", "pending_dependency_count", "attempt_count", "outcome", "reason", "attempt_id",
    "progress", "result",
]  # fmt: skip
CHILDREN = ["continuations", "failure_continuations", "final_continuations"]
PARENTS = ["after", "after_failure", "after_any"]


def test_what_is_left_out_has_its_default(server: Server):
    task = server.provider.post("tasks", {"name": "group"}).json()
    expected = {
        "command": None, "state": "inactive", "queue": "default", "labels": {}, "priority": 0,
        "tags": {}, "env": {}, "max_attempt_count": 1, "max_lost_count": 3,
        "max_shutdown_time_milliseconds": 600_000, "owner": "provider", "attempt_count": 0,
        "pending_dependency_count": 0, **{name: [] for name in [*CHILDREN, *PARENTS]},
    }  # fmt: skip
    assert {name: task[name] for name in expected} == expected
    resources = task["requested_resources"]
    assert resources["cpu_cores"] == {"count": 1, "percent": 0}
    assert resources["cpu_memory_bytes"] == 128 * 2**20


def test_defaults_are_not_shared_between_tasks(server: Server):
    child = make(server.provider)
    make(server.provider, continuations=[child["_id"]])
    assert make(server.provider)["continuations"] == []


def test_a_client_may_choose_the_id(server: Server):
    chosen = new_id()
    assert make(server.provider, _id=chosen)["_id"] == chosen
    assert read(server.provider, chosen)["command"] == "true"


def test_an_id_that_is_there_already_is_409_and_changes_nothing(server: Server):
    task = make(server.provider, name="first")
    answer = server.provider.post("tasks", {"_id": task["_id"], "name": "second"})
    refused(answer, 409, "already_exists")
    assert read(server.provider, task)["name"] == "first"


def test_a_list_with_an_id_that_is_there_already_stores_nothing(server: Server):
    task, fresh = make(server.provider), new_id()
    bodies = [{"_id": fresh, "command": "true"}, {"_id": task["_id"], "command": "true"}]
    refused(server.provider.post("tasks", bodies), 409, "already_exists")
    refused(server.provider.get(f"tasks/{fresh}"), 404)


@pytest.mark.parametrize("bad", ["1", "z" * 24, 24, None, ["a"], "5f" * 13])
def test_an_id_is_24_hex_digits(server: Server, bad: Any):
    assert "_id" in refused(server.provider.post("tasks", {"_id": bad}), 422)


def test_names_need_not_be_unique(server: Server):
    assert make(server.provider, name="twin")["_id"] != make(server.provider, name="twin")["_id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "n" * 256},
        {"command": "c" * 32_768},
        {"command": ["argv", "with space", "", "new\nline", "$(not a shell)"]},
        {"priority": -5},
        {"tags": {"k" * 64: "v" * 256}},
        {"tags": {f"k{i}": "" for i in range(64)}},
        {"labels": {"A-z_9": "x"}},
        {"env": {"_PATH": "", "A1": "ü"}},
        {"env": {"BASH_FUNC_module%%": "() { :; }", "my.dotted-name": "1", "a$b.$c": "2"}},
        {"env": {f"E{i}": "x" for i in range(1024)}},
        {"env": {"E": "x" * (128 * 1024 - 3), "F": "x" * (128 * 1024 - 3)}},
        {"retry_backoff": 1.5},
        {"max_lost_count": 0},
    ],
)
def test_a_field_is_stored_as_it_was_sent(server: Server, fields: dict[str, Any]):
    task = read(server.provider, make(server.provider, **fields))
    assert {name: task[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("name", ""), ("name", "n" * 257), ("name", 5),
        ("command", ""), ("command", []), ("command", [""]), ("command", ["a", 1]),
        ("command", "c" * 32_769), ("command", ["c" * 32_768, "d"]), ("command", 7),
        ("command", {"argv": ["a"]}), ("command", "a\0b"), ("command", ["a", "b\0"]),
        ("state", "running"), ("state", "terminated"), ("state", "cancelled"), ("state", "x"),
        ("state", ["available"]), ("state", None),
        ("continuations", "x"), ("continuations", ["x"]), ("continuations", [None]),
        ("continuations", ["5f" * 12] * 2), ("continuations", ["5f" * 12]),
        ("after", [f"{i:024x}" for i in range(1025)]), ("after", {}),
        ("queue", ""), ("queue", "a b"), ("queue", "default\n"), ("queue", 1),
        ("labels", {"a": 1}), ("labels", {"a b": "x"}), ("labels", ["a"]), ("labels", {"a\n": ""}),
        ("priority", "urgent"), ("priority", 1.5), ("priority", True), ("priority", None),
        ("priority", 10**12),
        ("tags", {"a.b": "x"}), ("tags", {"$a": "x"}), ("tags", {"": "x"}), ("tags", {"a\n": "x"}),
        ("tags", {"k" * 65: "x"}), ("tags", {"a": "v" * 257}), ("tags", {"a": None}),
        ("tags", {f"k{i}": "" for i in range(65)}), ("tags", []),
        ("env", {"A=B": "x"}), ("env", {"A B": "x"}), ("env", {"$where": "x"}),
        ("env", {"": "x"}), ("env", {"\xe9": ""}), ("env", {"A\n": "x"}), ("env", {"A": 1}),
        ("env", {"A": "x\0"}),
        ("env", {f"E{i}": "x" for i in range(1025)}), ("env", {"E": "x" * (128 * 1024 - 2)}),
        ("env", {f"E{i}": "ü" * 1400 for i in range(100)}),
        ("cwd", ""), ("cwd", "/srv\0"), ("cwd", 1),
        ("not_before", "tomorrow"), ("not_before", 5), ("not_before", "2026-13-01T00:00:00Z"),
        ("max_attempt_count", 0), ("max_attempt_count", 1.5), ("max_attempt_count", "2"),
        ("max_lost_count", -1),
        ("retry_delay_milliseconds", -1), ("retry_backoff", 0), ("retry_backoff", "2"),
        ("timeout_milliseconds", 0), ("timeout_milliseconds", "soon"),
        ("max_shutdown_time_milliseconds", -1), ("max_shutdown_time_milliseconds", "PT-5M"),
        ("estimated_runtime_milliseconds", -1), ("estimated_runtime_milliseconds", 2.5),
        ("dedupe_key", ""), ("dedupe_key", 1), ("dedupe_key", "k" * 257),
        ("shell", True), ("lease", {}), ("holder", {}), ("_etag", "x"), ("_created", "x"),
        ("open_parents", []), ("unsettled", False), ("$set", {"owner": "x"}), ("tags.a", "x"),
        ("add_continuations", []), ("worker", "x"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_422_naming_the_field(server: Server, field: str, bad: Any):
    issues = refused(server.provider.post("tasks", {"command": "true", field: bad}), 422, "invalid")
    assert issues.keys() == {field}


@pytest.mark.parametrize("field", READ_ONLY)
@pytest.mark.parametrize("value", [None, 1, "x", {"done": 1}])
def test_a_client_that_sends_a_servers_field_gets_422(server: Server, field: str, value: Any):
    answer = server.provider.post("tasks", {"command": "true", field: value})
    assert field in refused(answer, 422, "invalid")
    task = make(server.provider)
    answer = server.provider.patch(f"tasks/{task['_id']}", {field: value})
    assert field in refused(answer, 422, "invalid")
    assert read(server.provider, task)["_etag"] == task["_etag"]


@pytest.mark.parametrize(
    ("word", "number"), [("backfill", -100), ("low", -10), ("normal", 0), ("high", 10)]
)
def test_a_priority_may_be_a_word(server: Server, word: str, number: int):
    task = make(server.provider, priority=word)
    assert task["priority"] == number
    assert server.provider.patch(f"tasks/{task['_id']}", {"priority": word}).status_code == 200


@pytest.mark.parametrize("field", DURATIONS)
@pytest.mark.parametrize("text", ["10 minutes", "PT10M", 600_000])
def test_durations_are_accepted_as_text_and_stored_as_milliseconds(
    server: Server, field: str, text: Any
):
    assert make(server.provider, **{field: text})[field] == 600_000
    task = make(server.provider)
    answer = server.provider.patch(f"tasks/{task['_id']}", {field: text})
    assert answer.json()[field] == 600_000, answer.text


@pytest.mark.parametrize("text", ["2026-11-22T07:51:14.123+01:00", "2026-11-22T06:51:14.123Z"])
def test_times_come_back_in_utc(server: Server, text: str):
    assert make(server.provider, not_before=text)["not_before"] == "2026-11-22T06:51:14.123Z"


def test_times_are_accepted_as_http_writes_them(server: Server):
    task = make(server.provider, not_before="Sun, 22 Nov 2026 06:51:14 GMT")
    assert task["not_before"] == "2026-11-22T06:51:14.000Z"


def test_a_task_says_when_it_was_made(server: Server):
    made = datetime.fromisoformat(make(server.provider)["_created"])
    assert abs((datetime.now(UTC) - made).total_seconds()) < 60


# --- Changing ----------------------------------------------------------------------------


@pytest.mark.parametrize("field", CHANGEABLE)
def test_an_inactive_task_may_be_changed(server: Server, field: str):
    before, after = CHANGEABLE[field]
    task = make(server.provider, **{field: before})
    answer = server.provider.patch(f"tasks/{task['_id']}", {field: after})
    assert answer.status_code == 200, answer.text
    changed = read(server.provider, task)
    assert changed[field] != task[field]
    assert changed["_etag"] == answer.json()["_etag"] != task["_etag"]


@pytest.mark.parametrize("field", CHANGEABLE)
def test_setting_a_field_to_its_value_is_no_change_and_always_allowed(server: Server, field: str):
    value = CHANGEABLE[field][0]
    task = make(server.provider, state="available", **{field: value})
    answer = server.provider.patch(f"tasks/{task['_id']}", {field: value})
    assert answer.status_code == 200, answer.text
    assert read(server.provider, task)["_etag"] == task["_etag"]


@pytest.mark.parametrize("field", [name for name in CHANGEABLE if name not in ("priority", "tags")])
def test_other_fields_change_only_while_inactive(server: Server, field: str):
    before, after = CHANGEABLE[field]
    task = make(server.provider, state="available", **{field: before})
    answer = server.provider.patch(f"tasks/{task['_id']}", {field: after})
    assert refused(answer, 422).keys() == {field}
    assert answer.json()["state"] == "available"
    assert read(server.provider, task)["_etag"] == task["_etag"]


def test_priority_may_be_changed_until_the_task_runs(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    assert server.provider.patch(f"tasks/{task_id}", {"priority": 7}).json()["priority"] == 7
    play.player().claim()
    answer = server.provider.patch(f"tasks/{task_id}", {"priority": 8})
    assert "priority" in refused(answer, 422)
    assert server.provider.patch(f"tasks/{task_id}", {"priority": 7}).status_code == 200


def test_tags_may_be_changed_whatever_the_task_does(server: Server):
    play = Play(server)
    [task_id] = play.submit()
    player = play.player()
    [item] = player.claim()
    for tag, then in (("running", lambda: player.end(item)), ("done", lambda: None)):
        answer = server.provider.patch(f"tasks/{task_id}", {"tags": {"now": tag}})
        assert answer.json()["tags"] == {"now": tag}, answer.text
        then()


@pytest.mark.parametrize("field", [*CHILDREN, *PARENTS, "dedupe_key"])
def test_edges_and_dedupe_key_are_set_on_create_only(server: Server, field: str):
    task, other = make(server.provider), make(server.provider)
    value = "key" if field == "dedupe_key" else [other["_id"]]
    answer = server.provider.patch(f"tasks/{task['_id']}", {field: value})
    assert field in refused(answer, 422)
    same = server.provider.patch(f"tasks/{task['_id']}", {field: task[field]})
    assert same.status_code == 200, same.text


def test_one_wrong_field_keeps_the_others_from_being_written(server: Server):
    task = make(server.provider, name="before")
    answer = server.provider.patch(f"tasks/{task['_id']}", {"name": "after", "priority": "x"})
    assert refused(answer, 422).keys() == {"priority"}
    assert read(server.provider, task)["name"] == "before"


@pytest.mark.parametrize("body", [[], "x", 5, None, [{"name": "x"}]])
def test_a_change_is_an_object(server: Server, body: Any):
    task = make(server.provider)
    refused(server.provider.patch(f"tasks/{task['_id']}", body), 422)


# --- If-Match ----------------------------------------------------------------------------


def test_if_match_of_another_version_is_412_and_nothing_is_written(server: Server):
    task = make(server.provider)
    path = f"tasks/{task['_id']}"
    changed = server.provider.patch(path, {"name": "x"}, headers={"If-Match": task["_etag"]})
    assert changed.status_code == 200
    answer = server.provider.patch(path, {"name": "y"}, headers={"If-Match": task["_etag"]})
    refused(answer, 412, "precondition_failed")
    assert read(server.provider, task)["name"] == "x"


def test_if_match_star_means_any_version(server: Server):
    task = make(server.provider)
    answer = server.provider.patch(f"tasks/{task['_id']}", {"name": "x"}, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text


def test_if_match_may_be_the_etag_header_as_it_came(server: Server):
    task = make(server.provider)
    path = f"tasks/{task['_id']}"
    etag = server.provider.get(path).headers["ETag"]
    answer = server.provider.patch(path, {"name": "x"}, headers={"If-Match": etag})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("shape", "status"),
    [('"0000", "{0}"', 200), ('"a,b",W/"{0}"', 200), ('""', 412), ("", 412), ('"0000", ""', 412)],
)
def test_if_match_may_name_several_versions_and_none(server: Server, shape: str, status: int):
    task = make(server.provider)
    header = {"If-Match": shape.format(task["_etag"])}
    answer = server.provider.patch(f"tasks/{task['_id']}", {"name": "x"}, headers=header)
    assert answer.status_code == status, answer.text


def test_if_match_guards_what_a_worker_and_a_running_task_say(play: Play):
    player, [task] = play.player(), play.submit()
    path, old = f"tasks/{task}", {"If-Match": '"old"'}
    claim = {"state": "running", "update_execution_data": {"worker": player.id}}
    refused(player.api.patch(path, claim, headers=old), 412, "precondition_failed")
    assert play.task(task)["state"] == "available"
    current = {"If-Match": play.task(task)["_etag"]}
    claimed = player.api.patch(path, claim, headers=current)
    assert claimed.status_code == 200, claimed.text
    itself = Api(play.server.url, claimed.json()["token"])
    refused(itself.post(f"{path}/result", 1, headers=old), 412, "precondition_failed")
    said = {"token": claimed.json()["token"], "exit_status": "success", "time_terminated": now()}
    end = {"state": "terminated", "update_execution_data": said}
    refused(player.api.patch(path, end, headers=old), 412, "precondition_failed")
    assert (play.task(task)["state"], play.task(task)["result"]) == ("running", None)
    current = {"If-Match": play.task(task)["_etag"]}
    assert itself.post(f"{path}/result", 1, headers=current).status_code == 200
    refused(player.api.patch(path, end, headers=current), 412, "precondition_failed")
    ended = player.api.patch(path, end, headers={"If-Match": play.task(task)["_etag"]})
    assert ended.json()["state"] == "terminated", ended.text


def test_a_condition_that_nothing_heeds_is_refused(server: Server):
    task = make(server.provider)
    answer = server.provider.post(f"tasks/{task['_id']}/cancel", headers={"If-Match": '"old"'})
    refused(answer, 400, "bad_request")
    assert read(server.provider, task)["state"] == "inactive"


def test_what_is_left_out_is_as_it_is_documented(server: Server):
    described = server.anonymous.get("openapi.json").json()["components"]["schemas"]["NewTask"]
    defaults = {
        name: field["default"]
        for name, field in described["properties"].items()
        if "default" in field
    }
    assert defaults["state"] == "inactive"
    assert defaults["requested_resources"] == {"cores": 1, "memory": "128 MiB"}
    silent = server.provider.post("tasks", {}).json()
    explicit = server.provider.post("tasks", defaults).json()
    for name in described["properties"].keys() - {"_id"}:
        assert silent[name] == explicit[name], name
        assert name in defaults or silent[name] in (None, [], {}), name


def test_a_held_task_says_how_it_is_released(server: Server):
    made = server.provider.post("tasks", {"command": "true"}).json()
    edit = made["_links"]["edit"]
    assert '{"state": "available"}' in edit["title"]
    released = server.provider.patch(edit["href"], {"state": "available"}).json()
    assert released["state"] == "available"
    assert "releases" not in released["_links"]["edit"]["title"]


def test_what_is_wrong_is_always_a_list(server: Server):
    def texts(issues: Any) -> bool:
        if isinstance(issues, dict):
            return all(texts(one) for one in issues.values())
        return isinstance(issues, list) and all(isinstance(one, str | dict) for one in issues)

    for body in (
        {"name": 5, "owner": "x", "requested_resources": {"memory": "much"}},
        {"after": ["f" * 24]},
        [{"priority": "huge"}, {"_id": "f" * 24, "after": ["f" * 24]}],
    ):
        issues = refused(server.provider.post("tasks", body), 422)
        assert issues
        assert texts(issues), issues


def test_who_has_seen_the_end_of_a_task_waits_for_nothing(server: Server):
    task = server.provider.post("tasks", {"command": "true"}).json()["_id"]
    ended = server.provider.post(f"tasks/{task}/cancel")
    known = {"If-None-Match": ended.headers["ETag"]}
    begun = time.monotonic()
    answer = server.provider.get(f"tasks/{task}", headers=known, wait=20)
    assert answer.status_code == 304
    assert time.monotonic() - begun < 15
