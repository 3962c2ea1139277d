"""GET /tasks/<id>/log: the output of an attempt, as text, while it runs and afterwards.

`?attempt=` is the number of an attempt (the latest otherwise), `?offset=` the byte to
start from, `?stream=` one of the two, or what a callable gave back. The headers say where to go
on, and whether more is there already: output that came in very many pieces takes more than one
answer.
"""

from banyan.errors import BanyanError
from banyan.server import scoped
from banyan.server.calls import Answer, Call
from banyan.server.store import attempts, logs
from banyan.server.store.mongo import Document

_DIGITS_MAX = 15


def log(call: Call) -> Answer:
    """200 with text/plain. Its ETag changes when more output comes or the attempt ends."""
    unknown = call.args.keys() - {"attempt", "offset", "stream"}
    if unknown:
        raise BanyanError("bad_request", f"unknown argument {min(unknown)!r}")
    stream = call.args.get("stream")
    if stream not in (None, "stdout", "stderr", logs.ANSWER):
        raise BanyanError("bad_request", "stream: stdout, stderr or answer")
    offset = _number(call, "offset") or 0
    wanted = _number(call, "attempt")
    task = scoped.item(call, ["attempt_count", *attempts.ASKED_WITH])
    attempt = _attempt(call, task, wanted)
    topics = [f"log:{call.item_id}", f"task:{call.item_id}"]
    if attempt is None:
        headers = _headers(0, offset, complete=False)
        return Answer(b"", headers={**headers, "ETag": '"none"'}, wait_for=topics)
    if attempt.get("time_log_removed"):
        told = f"the output of attempt {attempt['attempt_count']} was removed to make room"
        raise BanyanError("not_found", f"{told} for newer (LOGS_TOTAL_BYTES_MAX)")
    # Whether it is complete is read first: output that comes in between is read as well.
    complete = attempt.get("time_terminated") is not None
    text, end, more = logs.read(call.store, attempt, offset, stream)
    complete = complete and not more
    headers = _headers(attempt["attempt_count"], end, complete)
    if more:
        headers["Banyan-Log-More"] = "true"
    etag = f'"{attempt["_id"]}-{end}-{int(complete)}"'
    return Answer(text, headers={**headers, "ETag": etag}, wait_for=topics)


def _number(call: Call, name: str) -> int | None:
    text = call.args.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS_MAX:
        raise BanyanError("bad_request", f"{name}: a whole number of at least 0")
    return int(text)


def _attempt(call: Call, task: Document, wanted: int | None) -> Document | None:
    """The attempt asked for, else the latest; None where there has been none yet."""
    found = attempts.one_of_task(call.store, task, wanted)
    if found or wanted is None:
        return found
    if wanted == task["attempt_count"]:
        return None  # claimed a moment ago: its record is on its way
    raise BanyanError("not_found", f"there is no attempt {wanted} of this task")


def _headers(attempt_count: int, end: int, complete: bool) -> dict[str, str]:
    return {
        "Banyan-Log-Attempt": str(attempt_count),
        "Banyan-Log-Next-Offset": str(end),
        "Banyan-Log-Complete": str(complete).lower(),
    }
