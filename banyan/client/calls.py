"""Python callables as tasks: packed here, called by `banyan.client.call`, the answer unpacked here.

Called by the Executor and by the task itself; a server never sees what is inside. A call travels
in the task's environment. Its answer goes by a pipe of its own to the worker, and with the task's
output to the server, as a stream that is shown to nobody: so nothing but Banyan has to lie between
the two machines. To unpack an answer is to trust the worker that ran the task.
"""

import base64
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

CALL = "BANYAN_CALL"
CALL_CHARACTERS_MAX = 60_000  # a task's environment has 64 KiB, of which some is left
ANSWER = "BANYAN_ANSWER"  # from the worker: "FILE BYTES", where to answer, and how much at most
STREAM = "answer"


def packed_call(
    call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, str]:
    """The environment of a task that makes the call. Errors: ValueError for one too large."""
    text = base64.b64encode(pack((call, tuple(args), dict(kwargs)))).decode()
    if len(text) > CALL_CHARACTERS_MAX:
        message = f"the call takes {len(text)} characters, at most {CALL_CHARACTERS_MAX} can be"
        raise ValueError(f"{message} sent: put the data into a file and pass its name")
    return {CALL: text}


def call_in(text: str) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """What `packed_call` has packed."""
    call, args, kwargs = unpack(base64.b64decode(text))
    return call, args, kwargs


def each(call: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
    """Several calls as one task."""
    return [call(*one) for one in arguments]


def answer_in(told: bytes) -> tuple[bool, Any]:
    """(whether it returned, what it returned or raised). Errors: whatever unpacking raises."""
    returned, value = unpack(told)
    return bool(returned), value


def words_of(problem: Any) -> str:
    """`ValueError: wrong`, of whatever was raised; as much of it as can be had."""
    name = "an error"
    try:
        name = f"{type(problem).__name__}"
        return f"{name}: {problem}"
    except BaseException:  # it is somebody's own code that tells of it
        return name


def is_exception(value: Any) -> bool:
    """Whether it can be raised; asks nothing of the value, which may hold anything."""
    return issubclass(type(value), BaseException)


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


def pack(value: Any) -> bytes:
    """Errors: whatever pickling raises."""
    data: bytes = pickler().dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return zlib.compress(data)


def unpack(data: bytes) -> Any:
    """What was packed."""
    return pickle.loads(zlib.decompress(data))  # noqa: S301 - only of the caller's own; see above
