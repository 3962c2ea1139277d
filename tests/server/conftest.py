"""What the tests of the server share."""

from tests.server.explained import bench as bench
from tests.server.explained import nothing_remembered as nothing_remembered
from tests.server.worlds import world as world
