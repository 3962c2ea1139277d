"""Eve's data layer: strict queries, the caller's scope, virtual fields in projections.

Eve's stock layer passes on what it does not understand and has no notion of scope. Here
each read is parsed by `queries.py`, and-ed with `auth.scope`, and limited to the fields
of the schema. Writes do not come this way: Eve's own PATCH swallows a lost race.
"""

from typing import Any

from bson import ObjectId
from eve.io.mongo import Mongo
from flask import current_app, g, request
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern

from banyan.config import knobs
from banyan.domain.states import ENDED
from banyan.server import aliases, queries, reserved, scoped
from banyan.server.auth import scope
from banyan.server.store import pages
from banyan.server.store.mongo import Document, Store

_MAJORITY = ReadConcern("majority")
_TOPICS_MAX = 1_000  # who names more tasks than that is woken by any
_ALWAYS = ("_id", "_created", "_updated", "_etag")


class BanyanMongo(Mongo):  # type: ignore[misc]  # Eve has no types
    """What Eve calls for GET on a collection and on an item."""

    def init_app(self, app: Any) -> None:
        """Eve's own connection is not used: the store has the only one."""

    def find(
        self, resource: str, req: Any, sub_resource_lookup: Any, perform_count: bool = True
    ) -> tuple[list[Document], int | None]:
        """One page of what the caller may see. Errors: `bad_request`.

        A page of more than PAGE_BYTES_MAX is answered as a smaller one: `_meta` says which.
        """
        schema = current_app.config["DOMAIN"][resource]["schema"]
        page, size = queries.parse_page(
            request.args, knobs().PAGE_ITEMS_DEFAULT, knobs().PAGE_ITEMS_MAX
        )
        req.page, req.max_results = page, size
        where = queries.parse_where(request.args.get("where"), schema)
        # Whoever asks for certain tasks may well be served in a moment, if not now.
        g.shaped = g.get("shaped", False) and "_id" not in where
        named = queries.named_ids(where)
        if resource == "tasks" and named is not None and len(named) <= _TOPICS_MAX:
            g.wait_for = [f"task:{task_id}" for task_id in named]
        limits = scope(g.caller, resource)
        query = {"$and": [limits, where]} if limits and where else limits or where
        fields = self._fields(resource)
        order = queries.parse_sort(request.args.get("sort"), schema) or [("_id", 1)]
        stored = aliases.stored_fields(resource, fields)
        asked = pages.Asked(query, stored, order, (page - 1) * size, size)
        items, is_cut = self._within(resource, asked, fields)
        if is_cut:
            page, size = pages.smaller(page, size, len(items))
            req.page, req.max_results = page, size
            items = items[:size]
        reserved.fill(g.context.store, resource, items, fields)
        total = (
            (page - 1) * size + len(items) if len(items) < size and (items or page == 1) else None
        )
        return items, total

    def _within(
        self, resource: str, asked: pages.Asked, fields: list[str]
    ) -> tuple[list[Document], bool]:
        """As many items as PAGE_BYTES_MAX has room for, and whether there are more."""
        bytes_max = knobs().PAGE_BYTES_MAX
        items, size_bytes, is_cut = pages.read(_told(resource), asked, bytes_max)
        filled = aliases.fill(g.context.store, resource, items, fields, bytes_max - size_bytes)
        return items[:filled], is_cut or filled < len(items)

    def find_one(
        self, resource: str, req: Any, check_auth_value: bool = True,
        force_auth_field_projection: bool = False, mongo_options: Any = None, **lookup: Any,
    ) -> Document | None:  # fmt: skip
        """One item that the caller may see; None makes Eve answer 404."""
        item_id = ObjectId(lookup["_id"])
        fields = self._fields(resource)
        if g.caller.task and g.caller.task != item_id:
            # The environment was for that task and its worker; this one may have another.
            fields = [name for name in fields if name.partition(".")[0] != "env"]
        store: Store = g.context.store
        query = scoped.to_read(store, g.caller, resource, item_id)
        item = _told(resource).find_one(query, aliases.stored_fields(resource, fields))
        if resource != "tasks" or "projection" in request.args:
            # The answer holds more than the stored document: its version is not the answer's.
            req.if_none_match, g.etag_of_answer = None, True
        if item and item.get("state") in ENDED:
            g.wait_for = []  # who has seen its end waits for nothing
        if item:
            aliases.fill(store, resource, [item], fields)
            reserved.fill(store, resource, [item], fields)
        return item

    def _fields(self, resource: str) -> list[str]:
        """The fields to answer with: those asked for, else all of the schema."""
        schema = current_app.config["DOMAIN"][resource]["schema"]
        names = aliases.names(resource, g.caller)
        asked = queries.parse_projection(request.args.get("projection"), names, schema)
        return [*_ALWAYS, *(schema if asked is None else asked)]


def _told(resource: str) -> Collection[Document]:
    """Tasks as a majority has them: an end that somebody has seen is never undone.

    Other records may be a moment ahead of that: what is forgotten of them is written again.
    """
    store: Store = g.context.store
    if resource != "tasks":
        return store[resource]
    return store[resource].with_options(read_concern=_MAJORITY)
