"""Python callables as tasks: packed here, called by `banyan.client.call`, the answer unpacked here.

Called by the Executor and by the task itself; a server never sees what is inside. A call travels
in the task's environment and its answer in the task's output, so nothing but Banyan has to lie
between the two machines. To unpack an answer is to trust the worker that ran the task.
"""

import base64
import pickle
import secrets
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from banyan.client.futures import TaskFailed

CALL = "BANYAN_CALL"
MARK = "BANYAN_CALL_MARK"
CALL_CHARACTERS_MAX = 60_000  # a task's environment has 64 KiB, of which some is left
ANSWER_CHARACTERS_MAX = 12 * 1024 * 1024  # of the 16 MiB that are kept of an attempt's output


def packed_call(
    call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, str]:
    """The environment of a task that makes the call. Errors: ValueError for one too large."""
    text = pack((call, tuple(args), dict(kwargs)))
    if len(text) > CALL_CHARACTERS_MAX:
        message = f"the call takes {len(text)} characters, at most {CALL_CHARACTERS_MAX} can be"
        raise ValueError(f"{message} sent: put the data into a file and pass its name")
    return {CALL: text, MARK: f"banyan-answer-{secrets.token_hex(8)}"}


def answer_in(output: bytes, mark: str, task_id: str) -> tuple[bool, Any]:
    """(whether it returned, what it returned or raised). Errors: TaskFailed where none is told."""
    for line in reversed(output.splitlines()):
        if line.startswith(mark.encode() + b" "):
            returned, value = unpack(line.split(b" ", 1)[1].decode())
            return bool(returned), value
    told = "its answer is not in its output, of which 16 MiB are kept"
    raise TaskFailed(task_id, "success", reason=told)


def pickler() -> Any:
    """The module cloudpickle, loaded. Errors: RuntimeError where it is not installed."""
    try:
        import cloudpickle
    except ImportError:
        message = (
            "callables need cloudpickle, here and at the workers: pip install 'banyan[python]'"
        )
        raise RuntimeError(message) from None
    return cloudpickle


def pack(value: Any) -> str:
    """Text for an environment or a line of output."""
    data: bytes = pickler().dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return base64.b64encode(zlib.compress(data)).decode()


def unpack(text: str) -> Any:
    """What was packed."""
    data = zlib.decompress(base64.b64decode(text))
    return pickle.loads(data)  # noqa: S301 - only of the caller's own tasks; see above
