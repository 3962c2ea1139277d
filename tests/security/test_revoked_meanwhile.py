"""A token that is issued while its account is revoked is worth nothing, whoever is faster."""

from typing import Any

import pytest

from banyan.server.store import accounts
from tests.server.explained import Bench


class Admin:
    """An admin, and an account to revoke."""

    def __init__(self, uri: str) -> None:
        self.bench = Bench(uri)
        store = self.bench.store
        token = accounts.issue(store, accounts.insert(store, "admin", ["admin"]))
        self.headers = {"Authorization": f"Bearer {token}"}
        self.account = accounts.insert(store, "stolen", ["provider"])

    def post(self, verb: str) -> Any:
        return self.bench.client.post(
            f"/accounts/{self.account['_id']}/{verb}", headers=self.headers
        )

    def is_revoked(self) -> bool:
        found = self.bench.store["accounts"].find_one({"_id": self.account["_id"]})
        return bool(found and found["revoked"])


@pytest.fixture
def admin(fresh_database: str) -> Admin:
    return Admin(fresh_database)


def test_revoked_between_the_note_and_the_token(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue, made = accounts.issue, list[str]()

    def issue_late(*arguments: Any) -> str:
        monkeypatch.setattr(accounts, "issue", issue)
        assert admin.post("revoke").status_code == 200
        made.append(issue(*arguments))
        return made[-1]

    monkeypatch.setattr(accounts, "issue", issue_late)
    refused = admin.post("issue")
    assert (refused.status_code, refused.json["_error"]["word"]) == (409, "conflict")
    assert accounts.find_token(admin.bench.store, made[0]) is None
    assert admin.is_revoked()


def test_issued_before_the_note(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    set_revoked, issued = accounts.set_revoked, list[Any]()

    def note_late(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(accounts, "set_revoked", set_revoked)
        issued.append(admin.post("issue"))
        return set_revoked(*arguments, **more)

    monkeypatch.setattr(accounts, "set_revoked", note_late)
    assert admin.post("revoke").status_code == 200
    assert accounts.find_token(admin.bench.store, issued[0].json["token"]) is None
    assert admin.is_revoked()
