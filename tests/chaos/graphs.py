"""Random graphs of tasks: what the load consists of, all of it from one source of chance."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

Item = dict[str, Any]

_KINDS = ("after", "after_any", "after_failure")
_WEIGHTS = (75, 18, 7)
SCRIPT = """\
# One executed task: a line at its start and one at its end, both on the disk before it goes on,
# and a lock that lasts for as long as any process of it lives.
exec 9>>"$CHAOS_DIRECTORY/locks/$BANYAN_TASK_ID"
flock -n 9 && alone=alone || alone=beside
read -r up idle </proc/uptime
me="$BANYAN_TASK_ID $BANYAN_ATTEMPT $BANYAN_ATTEMPT_COUNT $$"
echo "start $me $up $alone" >>"$CHAOS_DIRECTORY/executed"; sync "$CHAOS_DIRECTORY/executed"
echo "attempt $BANYAN_ATTEMPT"
case "$2" in
    stubborn) trap '' TERM ;;
    daemon) setsid sleep 600 9>&- >/dev/null 2>&1 & ;;
esac
sleep "$1"
read -r up idle </proc/uptime
echo "end $me $up $3" >>"$CHAOS_DIRECTORY/executed"; sync "$CHAOS_DIRECTORY/executed"
exit "$3"
"""


@dataclass(frozen=True)
class Kind:
    """How the tasks of a run are: where they write, and what they carry."""

    directory: Path
    env: dict[str, str]
    seconds_max: float = 3.0

    def prepare(self) -> None:
        """Write the script that all of them run."""
        (self.directory / "locks").mkdir(parents=True)
        (self.directory / "task.sh").write_text(SCRIPT)
        (self.directory / "executed").touch()

    def command(self, seconds: float, way: str = "plain", code: int = 0) -> list[str]:
        """A task that takes so long and ends with this code."""
        return ["/bin/sh", str(self.directory / "task.sh"), f"{seconds:.2f}", way, str(code)]

    def task(self, chance: Random, **fields: Any) -> Item:
        """One task that may run; its id is chosen here, so that sending it twice does no harm."""
        way = chance.choices(["plain", "stubborn", "daemon"], [90, 5, 5])[0]
        code = 3 if chance.random() < 0.1 else 0
        seconds = chance.uniform(0, self.seconds_max) ** 2 / self.seconds_max
        return {
            "_id": new_id(chance),
            "command": self.command(seconds, way, code),
            "state": "available",
            "env": {"CHAOS_DIRECTORY": str(self.directory), **self.env},
            "requested_resources": {"cores": 1, "memory": "64 MiB"},
            "max_attempt_count": chance.choice([1, 1, 2, 3]),
            "max_lost_count": 50,
            "max_shutdown_time_milliseconds": 1000,
            "priority": chance.choice([0, 0, 0, 5]),
            **fields,
        }


def new_id(chance: Random) -> str:
    return f"{chance.getrandbits(96):024x}"


def graph(kind: Kind, chance: Random, size_max: int = 15) -> list[Item]:
    """Tasks with edges from earlier to later ones; some only order others."""
    tasks: list[Item] = []
    for _ in range(chance.randint(1, size_max)):
        task = kind.task(chance)
        if chance.random() < 0.1:
            task["command"] = None
        for parent in chance.sample(tasks, min(len(tasks), chance.choice([0, 1, 1, 2, 3, 8]))):
            edges = task.setdefault(chance.choices(_KINDS, _WEIGHTS)[0], [])
            edges.append(parent["_id"])
        tasks.append(task)
    return tasks
