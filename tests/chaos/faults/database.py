"""A database that is away for a moment, slow, or says no: by commands to its members."""

import contextlib
from random import Random
from typing import Any

from pymongo.errors import PyMongoError

from tests.chaos.faults.fault import Fault, Heal, Strike
from tests.chaos.stage import Stage

_WRITES = ["update", "insert", "findAndModify", "commitTransaction", "bulkWrite"]
_COMMANDS = [*_WRITES, "find", "aggregate"]


def step_down(stage: Stage, chance: Random) -> None:
    """The primary gives up its place; another member takes it."""
    primary = stage.members.primary()
    if primary is None:
        return
    with contextlib.suppress(PyMongoError), stage.members.direct(primary) as client:
        client.admin.command("replSetStepDown", 3, secondaryCatchUpPeriodSecs=2)


def fail_commands(commands: list[str], share: float, **data: Any) -> Strike:
    """A fail point on every member: these commands of the server's fail, or take long."""

    def strike(stage: Stage, chance: Random) -> Heal:
        mode = {"activationProbability": share} if share < 1 else "alwaysOn"
        body = {"failCommands": commands, "appName": "banyan:banyan", **data}
        _everywhere(stage, mode, body)
        return lambda: _everywhere(stage, "off", {})

    return strike


def _everywhere(stage: Stage, mode: Any, data: dict[str, Any]) -> None:
    for member in stage.members.members:
        with contextlib.suppress(PyMongoError), stage.members.direct(member) as client:
            client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)


def _slow(seconds: float, share: float) -> Strike:
    milliseconds = int(seconds * 1000)
    return fail_commands(_COMMANDS, share, blockConnection=True, blockTimeMS=milliseconds)


FAULTS = [
    Fault("step-down", "F8", "the primary steps down", step_down),
    Fault("slow-database", "F21", "every command takes 200 ms longer", _slow(0.2, 1), (5, 12)),
    Fault("very-slow-database", "F21", "half take 2 s longer", _slow(2, 0.5), (5, 12)),
    Fault(
        "break-connections", "F21", "a tenth of all connections break at a command",
        fail_commands(_COMMANDS, 0.1, closeConnection=True), (3, 8),
    ),
    Fault(
        "lose-commits", "F21", "a fifth of all writes are done, and said to have failed",
        fail_commands(
            _WRITES, 0.2,
            writeConcernError={"code": 91, "errmsg": "injected"},
            errorLabels=["RetryableWriteError"],
        ), (3, 8),
    ),
]  # fmt: skip
