"""The values behind `{"secret": NAME}` in a task's environment: only this worker knows them.

Asked by the agent for each task that names one, at the moment of its start. A value goes into
the task's environment and nowhere else: it must never be logged, reported or kept.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from banyan import ownership
from banyan.errors import BanyanError
from banyan.worker.environment import for_launcher

PREFIX = "BANYAN_SECRET_"

_OF_OTHERS = 0o077
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes that are no text


class SecretMissing(Exception):
    """A task names a secret that this worker does not have, or cannot read."""


class Secrets:
    """Of one worker: a file of its own (JSON, name -> value), then `BANYAN_SECRET_<NAME>`."""

    def __init__(self, file: Path | None, environ: Mapping[str, str] = os.environ) -> None:
        self._file = file
        self._environ = environ

    def check(self) -> None:
        """Errors: `usage` where the file is not one, or others can read or exchange it."""
        try:
            self._read()
        except SecretMissing as problem:
            raise BanyanError("usage", str(problem.__cause__ or problem)) from None

    def resolved(self, env: Mapping[str, Any]) -> dict[str, str]:
        """An environment with its secrets put in. Errors: SecretMissing."""
        named = [value["secret"] for value in env.values() if not isinstance(value, str)]
        if not named:
            return dict(env)
        kept = self._read()
        values = {name: self._value(name, kept) for name in named}
        return {
            name: value if isinstance(value, str) else values[value["secret"]]
            for name, value in env.items()
        }

    def _value(self, name: str, kept: Mapping[str, str]) -> str:
        value = kept.get(name)
        if value is None:
            own = self._environ.get(f"{PREFIX}{name.upper()}")
            if own is None:
                raise SecretMissing(f"this worker has no secret {name!r}")
            value = for_launcher(own)
        if "\0" in value or _HALF.search(value):
            what = "a NUL" if "\0" in value else "half a character"
            raise SecretMissing(f"the secret {name!r} holds {what} and can't be in an environment")
        return value

    def _read(self) -> Mapping[str, str]:
        """Each time anew: a secret may be changed while the worker is at work."""
        if self._file is None:
            return {}
        try:
            kept = json.loads(ownership.read_own(self._file, _OF_OTHERS))
        except BanyanError as refusal:  # who owns the task is not told where it is
            message = "the file of secrets can be read by others, or changed, or is no file"
            raise SecretMissing(message) from refusal
        except OSError as problem:
            raise SecretMissing(f"the file of secrets: {problem.strerror}") from None
        except ValueError:  # its message would quote the file
            raise SecretMissing("the file of secrets is not JSON") from None
        if not isinstance(kept, dict) or not all(isinstance(one, str) for one in kept.values()):
            raise SecretMissing("the file of secrets is an object of names and texts")
        return kept
