"""Behind a proxy: whom it speaks for is believed, and of that only what it has seen itself."""

from typing import Any

import pytest

from banyan.server.bridge import environ_of, heed_proxy


def environ(**headers: str) -> dict[str, Any]:
    scope = {
        "method": "GET",
        "raw_path": b"/tasks",
        "query_string": b"",
        "http_version": "1.1",
        "client": ("127.0.0.1", 5),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }
    made = environ_of(scope)
    heed_proxy(made)
    return made


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("6.6.6.6, 10.0.0.1", "10.0.0.1"),  # the first was said by the caller
        ("2001:db8::1", "2001:db8::1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_last_address_is_the_one_that_the_proxy_saw(said: str, address: str) -> None:
    assert environ(x_forwarded_for=said)["REMOTE_ADDR"] == address


def test_without_a_word_of_the_proxy_it_is_the_proxy_that_asks() -> None:
    assert environ()["REMOTE_ADDR"] == "127.0.0.1"


def test_the_scheme_is_the_one_outside() -> None:
    assert environ(x_forwarded_proto="https")["wsgi.url_scheme"] == "https"
    assert environ(x_forwarded_proto="gopher")["wsgi.url_scheme"] == "http"
