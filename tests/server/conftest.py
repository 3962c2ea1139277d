"""What the tests of the server share."""

from tests.server.worlds import world as world
