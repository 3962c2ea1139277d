"""What attacks on launchers share with the tests of launchers, and a place for services."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.server.lanes import Lanes
from tests.server.explained import bench as bench
from tests.server.explained import nothing_remembered as nothing_remembered
from tests.server.worlds import world as world
from tests.worker.conftest import crew as crew
from tests.worker.conftest import launcher as launcher

for _key in Path(__file__).with_name("certificates").glob("*.key"):
    with contextlib.suppress(OSError):  # in a checkout of somebody else
        _key.chmod(0o600)  # which git does not keep


@pytest.fixture
def services() -> Iterator[Path]:
    """A directory such as a service has that is a user of its own; only root can make one."""
    made = Path(tempfile.mkdtemp(prefix="banyan-test-", dir="/var/lib"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def lanes_taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lanes by which requests go, in their order."""
    taken: list[str] = []
    run = Lanes.run

    def noted(self: Lanes, account: str, *arguments: Any, **more: Any) -> Any:
        taken.append(account)
        return run(self, account, *arguments, **more)

    monkeypatch.setattr(Lanes, "run", noted)
    return taken
