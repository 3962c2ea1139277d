"""Unix sockets below long paths: `banyan.socket_paths`."""

import shutil
import socket
from pathlib import Path

from banyan.socket_paths import PATH_BYTES_MAX, short_path


def test_a_short_path_stays_as_it_is(tmp_path: Path):
    assert short_path(tmp_path / "s") == str(tmp_path / "s")


def test_a_long_path_is_served_and_found(tmp_path: Path):
    directory = tmp_path / ("d" * PATH_BYTES_MAX)
    directory.mkdir()
    for _ in range(2):  # also after the directory was removed and made again
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(short_path(directory / "socket"))
            listener.listen()
            client.connect(short_path(directory / "socket"))
        shutil.rmtree(directory)
        directory.mkdir()
