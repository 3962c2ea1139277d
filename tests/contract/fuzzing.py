"""schemathesis against a running server, as one account; used by a test and by scripts/fuzz-api."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.harness import Server
from tests.harness.processes import ROOT

HERE = Path(__file__).parent
CALLERS = ("provider", "worker", "admin", "anonymous")


def allowed(server: Server, caller: str) -> list[str]:
    """Options for the operations that this caller may use; of nobody's a few, all are refused."""
    if caller == "anonymous":
        return ["--include-tag", "accounts"]
    options: list[str] = []
    for path in server.anonymous.get("openapi.json").json()["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and caller in operation.get("x-roles", ()):
                options += ["--include-operation-id", operation["operationId"]]
    return options


def fuzz(
    server: Server, caller: str, cases: int, seed: int, *options: str, directory: Path
) -> subprocess.CompletedProcess[str]:
    """Try every operation with `cases` cases; the exit code is 0 where nothing was found."""
    token = server.tokens.get(caller)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.contract.fuzz_hooks",
        "BANYAN_FUZZ_URL": server.url,
        "BANYAN_FUZZ_CREDENTIALS": str(server.credentials),
        "BANYAN_FUZZ_SEED": str(seed),
    }
    arguments: Sequence[str] = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file"),
        str(HERE / "schemathesis.toml"),
        *("run", f"{server.url}/openapi.json", "--no-color", "--continue-on-failure"),
        *("--max-examples", str(cases), "--seed", str(seed), "--generation-database", "none"),
        *(["--header", f"Authorization: Bearer {token}"] if token else []),
        *options,
    ]
    return subprocess.run(
        arguments, env=environment, cwd=directory, capture_output=True, text=True, check=False
    )
