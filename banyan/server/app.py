"""create_app(): the only wiring. Eve serves the reads; the tables make all other routes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eve
from bson import ObjectId
from flask import Response, g, request
from pymongo import timeout

from banyan.config import knobs, settings
from banyan.errors import BanyanError
from banyan.preferences import prefers_minimal
from banyan.server import (
    edge,
    instruments,
    links,
    openapi,
    outages,
    queries,
    render,
    table,
    virtual,
)
from banyan.server.auth import Authenticator, acting, forbidden, opens_metrics
from banyan.server.bridge import GO_ON, HEAD_ONLY
from banyan.server.calls import Answer, Call, Context, Signals, Silent
from banyan.server.data import BanyanMongo
from banyan.server.document import Document
from banyan.server.exposition import CONTENT_TYPE, Exposition
from banyan.server.schemas.parameters import READ_ITEM, READ_LIST
from banyan.server.scoped import missing
from banyan.server.store.mongo import Store
from banyan.server.validation import BanyanValidator

_EVE_SETTINGS: dict[str, Any] = {
    "IF_MATCH": True,
    "ENFORCE_IF_MATCH": False,
    "HATEOAS": False,
    "RENDERERS": ["banyan.server.render.JSON"],
    "ALLOW_OVERRIDE_HTTP_METHOD": False,
    "OPTIMIZE_PAGINATION_FOR_SPEED": False,
    "VALIDATE_FILTERS": False,
    "BANDWIDTH_SAVER": False,
    "X_HEADERS": None,
    "JSONP_ARGUMENT": None,
    "SCHEMA_ENDPOINT": None,
    "MONGO_QUERY_BLACKLIST": ["$where", "$expr", "$regex"],
}
_PUBLIC = {"healthz", "readyz", "openapi"}
_SHAPING = {"where", "sort", "by"}  # with these a caller says what is to be looked through


def create_app(
    mongo_uri: str, hub: Signals | None = None, page: dict[str, Any] | None = None
) -> eve.Eve:
    """The WSGI application over a prepared database.

    hub:  who is told when something changed, so that waiting requests go on.
    page: a settings page other than the one in force.
    """
    declared = dict(page or settings())
    domain = table.domain(declared["DOMAIN"])
    schemas = {name: entry["schema"] for name, entry in domain.items()}
    app = eve.Eve(
        import_name="banyan",
        root_path=str(Path(__file__).parent),
        settings={
            **_EVE_SETTINGS,
            "DOMAIN": domain,
            "VIRTUAL_RESOURCES": table.virtual(declared["VIRTUAL_RESOURCES"], schemas),
        },
        data=BanyanMongo,
        validator=BanyanValidator,
        static_folder=None,
    )
    store = Store(mongo_uri)
    context = Context(store, hub or Silent())
    Wiring(app, context).install()
    return app


def _end_of_limit(_: BaseException | None) -> None:
    limit = g.pop("limit", None)
    if limit:
        limit.__exit__(None, None, None)


class Wiring:
    """The routes of one application, and what happens around each request."""

    def __init__(self, app: eve.Eve, context: Context) -> None:
        self.app = app
        self.context = context
        self.authenticator = Authenticator(context, knobs().AUTH_FAILURES_PER_MINUTE)
        self.roles: dict[tuple[str, str], list[str]] = {}  # (endpoint, method) -> who may
        self.arguments: dict[str, Sequence[str]] = {}  # endpoint -> what it reads of the query
        self.exposition = Exposition(context.store)
        self.roles["metrics", "GET"] = ["operator"]
        self.document = Document(render.dumps(openapi.document(app.config)))

    def install(self) -> None:
        """Add everything to the application."""
        self.app.extensions["banyan"] = self
        self.app.before_request(self._before)
        self.app.after_request(self._after)
        self.app.teardown_request(_end_of_limit)
        for kind in (Exception, BanyanError):
            self.app.register_error_handler(kind, self._on_error)
        for code in list(self.app.error_handler_spec[None]):
            if code is not None:
                self.app.error_handler_spec[None][code].clear()
        self.app.view_functions.pop("home", None)
        self.app.view_functions["home"] = self._home
        self.app.add_url_rule("/healthz", "healthz", self._healthz)
        self.app.add_url_rule("/readyz", "readyz", self._readyz)
        self.app.add_url_rule("/metrics", "metrics", self._metrics)
        self.app.add_url_rule("/openapi.json", "openapi", self._openapi)
        self.app.on_fetched_item += self._link_item
        self.app.on_fetched_resource += self._link_list
        for resource, entry in self.app.config["DOMAIN"].items():
            self._resource_routes(resource, entry)
            self._virtual_routes(resource)

    def _resource_routes(self, resource: str, entry: dict[str, Any]) -> None:
        endpoints = {"collection": f"{resource}|resource", "item": f"{resource}|item_lookup"}
        for level, endpoint in endpoints.items():
            for method, rule in entry.get(level, {}).items():
                if method == "GET":
                    self.roles[endpoint, "GET"] = rule["roles"]
                    self.arguments[endpoint] = READ_LIST if level == "collection" else READ_ITEM
                    continue
                path = rule.get("function") or f"banyan.server.verbs.plain:{_PLAIN[level, method]}"
                row = {"function": path, "parameters": rule.get("parameters", ())}
                self._route(resource, level, "", [method], rule["roles"], row)

    def _virtual_routes(self, resource: str) -> None:
        for name, row in self.app.config["VIRTUAL_RESOURCES"].get(resource, {}).items():
            for level in ("item", "collection"):
                methods = table.methods(row, level)
                if not methods:  # its name is known there all the same: 405, not 404
                    self._route(resource, level, name, [], [], row)
                for method in methods:
                    writes = method != "GET" and row["kind"] == "alias"
                    roles = row["writers"] if writes else row["roles"]
                    self._route(resource, level, name, [method], roles, row)

    def _route(
        self, resource: str, level: str, name: str, methods: list[str], roles: list[str],
        row: dict[str, Any],
    ) -> None:  # fmt: skip
        path = f"/{resource}" + ("/<item_id:_id>" if level == "item" else "")
        path += f"/{name}" if name else ""
        endpoint = f"{resource}|{level}|{name}|{','.join(methods)}"
        for method in methods:
            self.roles[endpoint, method] = roles
        self.arguments[endpoint] = table.at_level(row, "parameters", level, ())
        serve = virtual.serve if "kind" in row else table.function(row["function"])

        def view(_id: str | None = None) -> Response:
            call = self._call(resource, name, _id, row)
            if call.if_match is not None and not _heeds_conditions(call):
                raise BanyanError("bad_request", _UNHEEDED)
            answer = serve(call)
            instruments.served(resource, name, answer)
            return self._respond(call, answer)

        self.app.add_url_rule(
            path.replace("<item_id:_id>", '<regex("[a-fA-F0-9]{24}"):_id>'),
            endpoint,
            view,
            methods=methods,
        )

    def _call(self, resource: str, name: str, item_id: str | None, row: dict[str, Any]) -> Call:
        headers = {**dict(request.headers), "Method": request.method}
        return Call(
            context=self.context,
            caller=g.caller,
            resource=resource,
            item_id=ObjectId(item_id) if item_id else None,
            body=edge.body_of(request),
            args=request.args.to_dict(),
            headers=headers,
            name=name,
            row=row,
        )

    def _respond(self, call: Call, answer: Answer) -> Response:
        if isinstance(answer.body, bytes):
            response = Response(answer.body, answer.status, mimetype="text/plain")
        else:
            response = Response(
                render.dumps(answer.body) if answer.body is not None else b"",
                answer.status,
                mimetype="application/json",
            )
        response.headers.update(answer.headers)
        g.wait_for = list(answer.wait_for)
        if request.method not in ("GET", "HEAD"):
            edge.hold(request, response, g.wait_for, answer.wait_as)
            _name_item(call, answer, response)
        return response

    def _after(self, response: Response) -> Response:
        if response.status_code == GO_ON:
            return response
        of_answer = g.get("etag_of_answer", False)
        finished = edge.finish(request, response, g.get("wait_for", ()), of_answer)
        instruments.answered(request, finished)
        return finished

    def _before(self) -> Response | None:
        """The answer, where there is one before the request was read to its end."""
        instruments.begun()
        g.context = self.context
        g.wait_for = []
        endpoint = request.endpoint
        if endpoint is None or endpoint in _PUBLIC:
            return None
        if endpoint == "metrics" and opens_metrics(request.headers.get("Authorization")):
            return None
        g.caller = self.authenticator.authenticate(
            request.headers.get("Authorization"), request.remote_addr or ""
        )
        edge.check_request(request)
        if endpoint == "home" or request.method == "OPTIONS":
            return None
        method = "GET" if request.method == "HEAD" else request.method
        roles = self.roles.get((endpoint, method), ())
        if not g.caller.has(*roles):
            raise forbidden(g.caller, roles)
        g.caller = acting(g.caller, roles)
        edge.check_arguments(request, self.arguments.get(endpoint, ()))
        if HEAD_ONLY in request.environ:
            return Response(status=GO_ON)
        if method == "GET":
            g.shaped = not request.args.keys().isdisjoint(_SHAPING)
            g.limit = timeout(knobs().QUERY_SECONDS_MAX)
            g.limit.__enter__()
        if endpoint.endswith(("|resource", "|item_lookup")):
            self._before_read(endpoint)
        return None

    def _before_read(self, endpoint: str) -> None:
        # Eve would choke on a page of 1e400.
        queries.parse_page(request.args, knobs().PAGE_ITEMS_DEFAULT, knobs().PAGE_ITEMS_MAX)
        resource = endpoint.split("|")[0]
        item_id = (request.view_args or {}).get("_id")
        g.wait_for = [f"task:{item_id}" if item_id else resource] if resource == "tasks" else []

    def _on_error(self, error: Exception) -> Response:
        _end_of_limit(None)
        slow = g.get("shaped", False) and outages.was_slow(error, self.context.store.ping)
        translated = queries.too_slow() if slow else edge.translate(error)
        resource, _, read = (request.endpoint or "").partition("|")
        if translated.word == "not_found" and read == "item_lookup":
            translated = missing(resource, (request.view_args or {}).get("_id"))
        instruments.refused(request, translated)
        return edge.error_response(translated)

    def _link_item(self, resource: str, item: dict[str, Any]) -> None:
        if not _minimal():
            item["_links"] = links.of_item(self.app.config, resource, item, g.caller)

    def _link_list(self, resource: str, answer: dict[str, Any]) -> None:
        if _minimal():
            return
        items = answer["_items"]
        meta = answer["_meta"]
        full = len(items) >= meta["max_results"]
        page = {"number": meta["page"], "full": full}
        query = request.args.to_dict()
        _, asked = queries.parse_page(
            request.args, knobs().PAGE_ITEMS_DEFAULT, knobs().PAGE_ITEMS_MAX
        )
        if meta["max_results"] != asked:  # all of it would have been too much
            query |= {"page": str(meta["page"]), "max_results": str(meta["max_results"])}
        answer["_links"] = links.of_collection(self.app.config, resource, g.caller, page, query)
        for item in items:
            item["_links"] = links.of_item(self.app.config, resource, item, g.caller)

    def _home(self) -> Response:
        body = {"account": g.caller.account, "_links": links.of_home(self.app.config, g.caller)}
        return Response(render.dumps(body), mimetype="application/json")

    def _healthz(self) -> Response:
        return Response(b'{"_status":"OK"}', mimetype="application/json")

    def _metrics(self) -> Response:
        waiting = getattr(self.context.signals, "waiting", 0)
        return Response(self.exposition.text(waiting), content_type=CONTENT_TYPE)

    def _openapi(self) -> Response:
        return self.document.response(request)

    def _readyz(self) -> Response:
        self.context.store.ping()
        return Response(b'{"_status":"OK"}', mimetype="application/json")


_PLAIN = {
    ("collection", "POST"): "create",
    ("item", "PATCH"): "edit_one",
    ("item", "DELETE"): "remove",
}


_UNHEEDED = "`If-Match` is heeded where fields of one item are changed: leave it out here"


def _heeds_conditions(call: Call) -> bool:
    """Else a condition would be passed over, and the caller not know."""
    edits = call.item_id is not None and call.row.get("kind") in ("alias", "append", "remove")
    return edits or (call.headers["Method"] == "PATCH" and not call.name)


def _name_item(call: Call, answer: Answer, response: Response) -> None:
    """The version of the one item that was written, and the place of a new one."""
    item = answer.body
    if not isinstance(item, dict) or not item.keys() >= {"_id", "_etag"}:
        return
    response.set_etag(item["_etag"])
    if response.status_code == 201:
        response.headers["Location"] = links.address_of(call.resource, item)


def _minimal() -> bool:
    return prefers_minimal(request.headers.get("Prefer", ""))
