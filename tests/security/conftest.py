"""What attacks on launchers share with the tests of launchers."""

from tests.worker.conftest import launcher as launcher
