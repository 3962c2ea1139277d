"""The figures of docs/adr/0001: what the bridge costs, and what those who wait cost others.

    .venv/bin/python scripts/bench_waiting.py [banyan|a2wsgi|none]

A bare Flask application in one process, asked over keep-alive connections by this one.
`a2wsgi` is another bridge to compare with (install it first), `none` the ASGI server alone.
"""

import asyncio
import importlib
import itertools
import os
import signal
import socket
import sys
import time
from typing import Any

import uvloop
from flask import Flask, Response

from banyan.server.asgi import Application
from banyan.server.serve import Server, server_config
from banyan.server.waiting import Hub


def make_flask(hub: Any = None) -> Any:
    """GET / answers at once; GET /wait until POST / was called."""
    flask, changed = Flask("bench"), [False]

    @flask.get("/")
    def answer() -> Response:
        return Response(b'{"a":1}', mimetype="application/json")

    @flask.get("/wait")
    def wait() -> Response:
        headers = {} if changed[0] else {"Banyan-Wait": "task:1"}
        return Response(b"{}", headers=headers, mimetype="application/json")

    @flask.post("/")
    def change() -> Response:
        changed[0] = True
        hub.signal("task:1")
        return Response(b"{}")

    return flask


def serve(kind: str, listening: socket.socket) -> None:
    """Serve on the socket until SIGTERM."""
    hub = Hub()
    application: Any = Application(make_flask(hub), hub, threads=8)
    if kind == "a2wsgi":
        application = importlib.import_module(kind).WSGIMiddleware(make_flask(), workers=8)
    elif kind == "none":
        application = nothing
    Server(server_config(application), hub).run([listening])


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """No WSGI at all: what the ASGI server itself takes."""
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"{}"})


async def ask(port: int, request: str, times: int = 1) -> list[float]:
    """Ask over one connection; the seconds that each answer took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        writer.write(f"{request}\r\nHost: x\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        took.append(time.perf_counter() - began)
    writer.close()
    return took


async def measure_requests(port: int, connections: int, each: int) -> None:
    """Plain requests, one after the other on each connection."""
    began = time.perf_counter()
    took = await asyncio.gather(*(ask(port, "GET / HTTP/1.1", each) for _ in range(connections)))
    total = time.perf_counter() - began
    show(
        f"{connections} connections: {connections * each / total:.0f} requests/s",
        [*itertools.chain(*took)],
    )


async def measure_waiting(port: int, waiting: int) -> None:
    """What others notice of so many who wait, and when those hear of a change."""
    held = "GET /wait HTTP/1.1\r\nPrefer: wait=50"
    waiters = [asyncio.ensure_future(ask(port, held)) for _ in range(waiting)]
    await asyncio.sleep(2)
    show(f"{waiting} wait, another asks", await ask(port, "GET / HTTP/1.1", 200))
    began = time.perf_counter()
    await ask(port, "POST / HTTP/1.1\r\nContent-Length: 0")
    [meanwhile] = await ask(port, "GET / HTTP/1.1")
    await asyncio.gather(*waiters)
    total = time.perf_counter() - began
    sys.stdout.write(f"  all woken within {total * 1e3:.0f} ms; another asked meanwhile: ")
    sys.stdout.write(f"{meanwhile * 1e3:.1f} ms\n")


def show(what: str, took: list[float]) -> None:
    took.sort()
    middle, late = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
    sys.stdout.write(f"  {what}: p50 {middle:.2f} ms, p99 {late:.2f} ms\n")


def main(kind: str = "banyan") -> None:
    """Serve in a process of its own, measure, and end it."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listening.getsockname()[1]
    child = os.fork()
    if child == 0:
        serve(kind, listening)
        os._exit(0)
    try:
        sys.stdout.write(f"{kind}\n")
        for connections in (1, 16):
            uvloop.run(measure_requests(port, connections, 500))
        if kind == "banyan":
            uvloop.run(measure_waiting(port, 500))
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
