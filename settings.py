"""The one page that declares Banyan's knobs and its API.

Each knob is also an environment variable: `BANYAN_LEASE_SECONDS=20 banyan up`.
"""

# --- Where it listens and what it uses -------------------------------------------------
HOST = "127.0.0.1"
PORT = 5100
MONGO_URI = ""  # empty: a private MongoDB in the data directory
DATABASE = "banyan"  # used where the URI names no database
SERVER_PROCESSES = 1
SERVER_THREADS = 8  # requests in work at one time in one server process

# --- Leases ----------------------------------------------------------------------------
LEASE_SECONDS = 60.0  # a worker that is silent for so long has lost its attempts
LEASE_MARGIN_SECONDS = 15.0  # and after this much more its tasks are given out again
UPKEEP_SECONDS = 1.0  # how often lapsed leases and half-done releases are looked for
STARVATION_SECONDS = 30.0  # a task passed over for so long holds back what comes after it

# --- Limits ----------------------------------------------------------------------------
WAIT_SECONDS_MAX = 60.0  # of `Prefer: wait=`
BODY_BYTES_MAX = 16 * 1024 * 1024
BODY_DEPTH_MAX = 16
BULK_ITEMS_MAX = 1000
PAGE_ITEMS_MAX = 1000
PAGE_ITEMS_DEFAULT = 25
LOG_BYTES_MAX = 16 * 1024 * 1024  # of output kept for one attempt
