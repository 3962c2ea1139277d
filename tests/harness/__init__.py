"""What the tests share: waiting for events, a real MongoDB, real servers and processes."""

from tests.harness.api import Api
from tests.harness.eventually import eventually
from tests.harness.processes import Processes, Started, marked_processes
from tests.harness.server import Server, start_server

__all__ = [
    "Api",
    "Processes",
    "Server",
    "Started",
    "eventually",
    "marked_processes",
    "start_server",
]
