"""The environment and the command of a task's process.

Called by the agent for each task that it starts. A task gets what its owner asked for, a few
names of the machine, and who it is. It must never get a token or a setting of the worker.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from banyan.client import calls
from banyan.worker.identity import User
from banyan.worker.tree import ATTEMPT_VARIABLE, WORKER_VARIABLE

_KEPT = {"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"}
_KEPT_PREFIX = "LC_"
# What is the same for everybody on the machine; all else of root is no business of a user.
_KEPT_FOR_OTHERS = {"LANG", "TZ"}
# Of libraries that start a thread for each core of the machine, unless told otherwise. Those of the
# first group go by the first name where their own is not set.
_THREADS_BY_OMP = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)  # fmt: skip
_THREADS = ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
_PATH_OF_OTHERS = "/usr/local/bin:/usr/bin:/bin"


def base_environment(
    own: Mapping[str, str],
    user: User | None = None,
    tls_ca: str = "",
    programs: str = "",
    socket: str = "",
) -> dict[str, str]:
    """What of the worker's own environment its tasks may see, as `for_launcher` says it.

    user:     whose processes they are, where that is another.
    tls_ca:   whom they are to trust as the server; empty: the machine's authorities.
    programs: where `banyan` is, with which they speak to it; looked for last.
    socket:   the server's unix socket, by which they do so; other users can't.
    """
    names = _KEPT_FOR_OTHERS if user else _KEPT
    kept = {
        name: value for name, value in own.items() if name in names or name.startswith(_KEPT_PREFIX)
    }
    if user:
        kept |= {"PATH": _PATH_OF_OTHERS, **user.environment()}
    places = kept.get("PATH", os.defpath).split(os.pathsep)
    if programs and programs not in places:
        kept["PATH"] = os.pathsep.join([*places, programs])
    if socket and not user:
        kept["BANYAN_SOCKET"] = socket
    kept = {**kept, "BANYAN_TLS_CA": tls_ca} if tls_ca else kept
    return {for_launcher(name): for_launcher(value) for name, value in kept.items()}


def for_launcher(text: str) -> str:
    """A path or a variable of this machine, as the launcher has it, whose words are all UTF-8.

    Here it was read by the locale of the worker; its bytes stay what they were.
    """
    return os.fsencode(text).decode(errors="surrogateescape")


def own_programs() -> str:
    """The directory of the `banyan` that this worker was installed with; empty without one."""
    directory = os.path.dirname(sys.executable)
    return directory if os.path.exists(os.path.join(directory, "banyan")) else ""


def task_environment(
    base: Mapping[str, str],
    task: Mapping[str, Any],
    url: str,
    worker: str,
    gpus: Sequence[int],
    counts_gpus: bool,
) -> dict[str, str]:
    """For one claimed task. What it asked for stands before the machine's, Banyan's before both.

    Numerical libraries are told of as many threads as it has whole cores, one at least.
    task: its `env` has no secret to be put in any more.
    counts_gpus: whether the worker says how many there are, be it none; then a task sees those
        that it was granted, and no other.
    """
    granted = task["granted_resources"]
    listed = ",".join(map(str, gpus))
    own = task.get("env") or {}
    marks = {WORKER_VARIABLE: worker, ATTEMPT_VARIABLE: str(task["attempt_id"])}
    environment = {
        **marks,  # first, where whoever looks for them need not read far
        **base,
        **_threads(granted["cores"], own),
        **own,
        "BANYAN_URL": url,
        "BANYAN_TASK_ID": str(task["_id"]),
        "BANYAN_TASK_NAME": str(task.get("name") or "").replace("\0", ""),  # none can have that
        "BANYAN_TASK_TOKEN": str(task["token"]),
        **marks,
        "BANYAN_ATTEMPT_COUNT": str(task["attempt_count"]),
        "BANYAN_CORES": str(granted["cores"]),
        "BANYAN_MEMORY_BYTES": str(granted["memory_bytes"]),
        "BANYAN_GPUS": listed,
    }
    if counts_gpus:
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # in which the indexes count
        environment["CUDA_VISIBLE_DEVICES"] = listed
    return environment


def _threads(cores: float, own: Mapping[str, str]) -> dict[str, str]:
    names = _THREADS if _THREADS_BY_OMP[0] in own else _THREADS_BY_OMP + _THREADS
    return dict.fromkeys(names, str(max(int(cores), 1)))


def room_for_output(task: Mapping[str, Any], bytes_max: int) -> dict[str, Any]:
    """How much is kept of what it says, as the launcher is told; of a callable half is its answer.

    task: as above.
    """
    if calls.CALL not in task["env"]:
        return {"log_bytes_max": bytes_max}
    return {"log_bytes_max": bytes_max // 2, "answer": (calls.ANSWER, bytes_max // 2)}


def command_argv(command: str | list[str]) -> list[str]:
    """A string goes to the shell, a list is the program and its arguments."""
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
