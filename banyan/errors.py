"""The closed list of errors: word <-> HTTP status <-> CLI exit code.

Every refusal that leaves a Banyan process, over HTTP or as an exit code, carries one
of these words. Everybody may import this file; of Banyan it imports `printable` alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from banyan.printable import harmless_lines

EXIT_OK = 0
EXIT_TASK_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_REFUSED = 4
EXIT_AUTH = 5
EXIT_BUG = 70
EXIT_OUTPUT = 74
EXIT_UNAVAILABLE = 75
EXIT_INTERRUPTED = 130


class Word(NamedTuple):
    """What one error word stands for."""

    status: int
    exit_code: int
    meaning: str


WORDS: Mapping[str, Word] = {
    "bad_request": Word(400, EXIT_USAGE, "the request could not be read"),
    "unauthenticated": Word(401, EXIT_AUTH, "no token, or a wrong one"),
    "token_missing": Word(401, EXIT_AUTH, "the attempt's token is missing"),
    "forbidden": Word(403, EXIT_AUTH, "the caller's role may not do this"),
    "quota_exceeded": Word(403, EXIT_UNAVAILABLE, "it would be more than the caller may have"),
    "not_found": Word(404, EXIT_NOT_FOUND, "there is no such thing, or not for this caller"),
    "method_not_allowed": Word(405, EXIT_USAGE, "this address does not have that method"),
    "not_acceptable": Word(406, EXIT_USAGE, "answers are JSON only"),
    "conflict": Word(409, EXIT_REFUSED, "another request was faster"),
    "already_exists": Word(409, EXIT_REFUSED, "the identifier is taken"),
    "dedupe_mismatch": Word(409, EXIT_REFUSED, "the dedupe_key belongs to a different task"),
    "lease_lost": Word(409, EXIT_REFUSED, "the attempt is no longer the caller's"),
    "precondition_failed": Word(412, EXIT_REFUSED, "If-Match names another version"),
    "too_large": Word(413, EXIT_USAGE, "the body or the list is too long"),
    "unsupported_media_type": Word(415, EXIT_USAGE, "requests are JSON only"),
    "invalid": Word(422, EXIT_USAGE, "fields are invalid; see _issues"),
    "illegal_transition": Word(422, EXIT_REFUSED, "the task's state does not allow this"),
    "too_many_requests": Word(429, EXIT_UNAVAILABLE, "too many wrong tokens: slow down"),
    "internal": Word(500, EXIT_BUG, "a bug in Banyan: please report it"),
    "unavailable": Word(503, EXIT_UNAVAILABLE, "the database or the server is away"),
    # Words that only a process on the user's own machine says; the status is unused.
    "data_directory_in_use": Word(409, EXIT_REFUSED, "another process serves this directory"),
    "no_mongod": Word(503, EXIT_UNAVAILABLE, "no mongod program was found"),
    "output": Word(500, EXIT_OUTPUT, "standard output or error cannot be written"),
    "usage": Word(400, EXIT_USAGE, "the command line is wrong"),
}
LOCAL_WORDS = frozenset({"data_directory_in_use", "no_mongod", "output", "usage"})


class BanyanError(Exception):
    """A refusal with its word; `message` says what to do next.

    issues: field (or item index) -> what is wrong with it.
    extra:  further top-level members of the JSON answer, e.g. the state that won.
    allowed_methods: of a 405, for its header `Allow`.
    retry_after_seconds: of a 429 or a 503, for its header `Retry-After`.
    """

    def __init__(
        self,
        word: str,
        message: str,
        issues: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        allowed_methods: tuple[str, ...] = (),
        retry_after_seconds: float = 1.0,
    ) -> None:
        super().__init__(message)
        self.word = word
        self.message = message
        self.issues = dict(issues or {})
        self.extra = dict(extra or {})
        self.allowed_methods = allowed_methods
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """The message, which may be a server's, with its issues; as a terminal may show it."""
        if not self.issues:
            return harmless_lines(self.message)
        message = self.message.removesuffix("see _issues").removesuffix(": ")
        return harmless_lines(": ".join(filter(None, [message, str(self.issues)])))

    @property
    def status(self) -> int:
        """The HTTP status of the word."""
        return WORDS[self.word].status

    @property
    def exit_code(self) -> int:
        """The exit code with which the command line ends."""
        return WORDS[self.word].exit_code

    def body(self) -> dict[str, Any]:
        """The JSON answer, in the one shape that all errors have."""
        error = {"code": self.status, "word": self.word, "message": self.message}
        answer: dict[str, Any] = {"_status": "ERR", "_error": error, **self.extra}
        if self.issues:
            answer["_issues"] = {str(name): _listed(one) for name, one in self.issues.items()}
        return answer


def _listed(issue: Any) -> Any:
    """What is wrong as a list, wherever it stands: programs need not tell text from lists."""
    if isinstance(issue, Mapping):
        return {str(name): _listed(one) for name, one in issue.items()}
    return list(issue) if isinstance(issue, list | tuple) else [issue]
