"""What is counted of each request; called by `app.py` around it.

Addresses are counted by their template, so that no id and no name becomes a label.
"""

import re
from time import perf_counter

from flask import Request, Response, g

from banyan.errors import BanyanError
from banyan.server.calls import Answer
from banyan.server.counters import COUNTERS, SIZES

_VARIABLE = re.compile(r"<[^>]*>")
_REASONS = {"unauthenticated": "wrong", "too_many_requests": "limited"}


def begun() -> None:
    """A request is looked at from now on."""
    g.begun = perf_counter()


def answered(request: Request, response: Response) -> None:
    """Its answer is ready."""
    route = _route(request)
    COUNTERS.count(
        "banyan_http_requests_total",
        route=route,
        method=request.method,
        status=str(response.status_code),
    )
    if "begun" in g:
        seconds = perf_counter() - g.begun
        COUNTERS.observe("banyan_http_request_duration_seconds", seconds, route=route)


def _route(request: Request) -> str:
    rule = request.url_rule
    return _VARIABLE.sub("{id}", rule.rule) if rule else "none"


def served(resource: str, name: str, answer: Answer) -> None:
    """An action or a view was served; of claims it is told how many tasks they got."""
    if resource == "tasks" and name == "claim" and isinstance(answer.body, dict):
        got = len(answer.body.get("_items", [answer.body]))
        COUNTERS.count("banyan_claims_total", result="won" if got else "empty")
        COUNTERS.observe("banyan_claim_tasks", got, SIZES)


def refused(request: Request, error: BanyanError) -> None:
    """A request was refused."""
    COUNTERS.count("banyan_errors_total", word=error.word)
    if error.word == "lease_lost":
        COUNTERS.count("banyan_stale_writes_total", route=_route(request))
    if error.word in _REASONS:
        reason = _REASONS[error.word] if "Authorization" in request.headers else "missing"
        COUNTERS.count("banyan_auth_failures_total", reason=reason)
