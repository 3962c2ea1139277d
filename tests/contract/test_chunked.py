"""Bodies that come in chunks, without their length: the same rules as for any other."""

from collections.abc import Iterator

from tests.contract.asking import refused
from tests.harness import Server

JSON = {"Content-Type": "application/json"}


def chunks(*parts: bytes) -> Iterator[bytes]:
    """What makes the client send chunks."""
    yield from parts


def test_a_body_in_chunks_is_a_body(server: Server):
    answer = server.provider.post("tasks", data=chunks(b'{"name": ', b'"x"}'), headers=JSON)
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "x"


def test_a_body_in_chunks_of_another_type_is_415(server: Server):
    headers = {"Content-Type": "text/plain"}
    answer = server.provider.post("tasks", data=chunks(b'{"name": "x"}'), headers=headers)
    refused(answer, 415, "unsupported_media_type")
    headers = {**JSON, "Content-Encoding": "gzip"}
    answer = server.provider.post("tasks", data=chunks(b'{"name": "x"}'), headers=headers)
    refused(answer, 415, "unsupported_media_type")


def test_chunks_without_end_are_413(server: Server):
    endless = (b" " * 2**20 for _ in range(17))
    refused(server.provider.post("tasks", data=endless, headers=JSON), 413, "too_large")
