"""The one page that declares Banyan's knobs and its API.

Each knob is also an environment variable: `BANYAN_LEASE_SECONDS=20 banyan up`.
"""

# --- Where it listens and what it uses -------------------------------------------------
HOST = "127.0.0.1"
PORT = 5100
MONGO_URI = ""  # empty: a private MongoDB in the data directory
DATABASE = "banyan"  # used where the URI names no database
SERVER_PROCESSES = 1
SERVER_THREADS = 8  # of one account's requests in work in one server process; of all twice as many

# --- Who may talk to it ----------------------------------------------------------------
# Different wrong tokens that one address may send in a minute, to one server process; then 429. A
# valid token is served all the same, so that a laboratory behind one address goes on.
AUTH_FAILURES_PER_MINUTE = 30
METRICS_TOKEN = ""  # opens GET /metrics and nothing else; empty: an operator's token does
ALLOW_PLAIN_HTTP = False  # tokens may go over http beyond this machine: clients, and servers

# --- What it says on standard error -------------------------------------------------------
LOG_FORMAT = "text"  # or "json": one object a line
LOG_LEVEL = ""  # debug, info (with a line for each request), warning, error; empty: as usual

# --- Leases ----------------------------------------------------------------------------
# 1 to 86,400: a worker that is silent for so long has lost its attempts.
LEASE_SECONDS = 60.0
LEASE_MARGIN_SECONDS = 15.0  # and after this much more its tasks are given out again
UPKEEP_SECONDS = 1.0  # how often lapsed leases and half-done releases are looked for
STARVATION_SECONDS = 30.0  # a task passed over for so long holds back what comes after it

# --- Retention: ended tasks go, with their attempts and output -----------------------------
RETAIN = "30 days"  # after the end, or the last change; "forever" keeps them
RETAIN_QUEUES = ""  # of single queues: "scratch=1 day, archive=forever"; a task's own goes before
RETENTION_SECONDS = 60.0  # how often what has had its time is looked for
LOGS_TOTAL_BYTES_MAX = 16 * 1024**3  # of output, of all attempts; beyond it the oldest goes first
SAMPLES_WHOLE_SECONDS = 86_400.0  # so long after its claim an attempt's samples are thinned
SAMPLES_THINNED_MAX = 50  # to so many of each kind; the peaks stay

# --- Limits ----------------------------------------------------------------------------
WAIT_SECONDS_MAX = 60.0  # of `Prefer: wait=`
BODY_BYTES_MAX = 16 * 1024 * 1024
BODIES_BYTES_MAX = 256 * 1024**2  # of all long bodies that one server process holds; half by one
# Of all answers that are not read, in one server process; callers without a valid token: a quarter.
UNREAD_BYTES_MAX = 256 * 1024**2
BODY_DEPTH_MAX = 16
BULK_ITEMS_MAX = 1000
PAGE_ITEMS_MAX = 1000
PAGE_ITEMS_DEFAULT = 25
PAGE_BYTES_MAX = 16 * 1024 * 1024  # of a list in an answer: beyond it the page is made smaller
RESULT_BYTES_MAX = 1024 * 1024  # of what a task gives back, as stored; at most 2 MiB
# Of one server process; fewer where its limit of open files is lower. Of the account with the most
# connections one is closed where all accounts together have more than seven eighths.
CONNECTIONS_MAX = 16_000
CONNECTIONS_PER_ADDRESS_MAX = 2_000  # by which no valid token came yet; 0: no bound
QUERY_SECONDS_MAX = 5.0  # of the database's time for one GET; what takes longer is refused
LOG_BYTES_MAX = 16 * 1024 * 1024  # of output kept for one attempt

# --- What one owner may have; 0: no such limit ---------------------------------------------
# Counted at times only, so what comes in through several server processes may pass them a little.
OWNER_OPEN_TASKS_MAX = 1_000_000  # tasks that have not ended
OWNER_TASKS_MAX = 5_000_000  # tasks that are stored, ended ones too
OWNER_OPEN_SHAPES_MAX = 2_500  # different requests (resources, queue, labels) of open tasks
ACCOUNT_WORKERS_MAX = 2_000  # workers that one account has registered and that are not gone

# --- What a running task may submit with its own token, which its worker has, too ------------
# same: into its own queue, with its labels (and more), at no higher priority. any: wherever it
# likes. off: nothing. In no case with a secret that the task itself does not name.
TASK_SUBMISSIONS = "same"
TASK_SUBMISSIONS_MAX = 10_000  # tasks, by one task in all its attempts; 0: no limit
TASK_DEPTH_MAX = 1_000  # tasks that each submit the next one; 0: no limit

# --- The API: resources ------------------------------------------------------------------
# Who may do what to a collection and to an item. GET is served by Eve; the other methods
# name their function. Fields are in banyan/server/schemas/, one file a resource. For the
# documents: `many` where a list may be sent as well, `chosen_id` where `_id` may be,
# `statuses` and `answer` where they are other than usual. `states_of`: a role may do it only
# while the item is in one of these. `title`, `title_in` (a state): of its link, if not the usual.
PROVIDERS = ["provider", "operator"]
WORKERS = ["worker"]
RUNNING_TASKS = ["task"]  # a task, with the token of its own attempt
TASK_USERS = [*PROVIDERS, *WORKERS]
READERS = [*TASK_USERS, *RUNNING_TASKS]  # a running task reads itself and its parents
VERBS = "banyan.server.verbs"
SCHEMAS = "banyan.server.schemas"
ANSWERS = "banyan.server.schemas.answers"

DOMAIN = {
    "tasks": {
        "schema": "banyan.server.schemas.tasks",
        "collection": {
            "GET": {"roles": TASK_USERS},
            "POST": {
                "roles": [*PROVIDERS, *RUNNING_TASKS],
                "function": f"{VERBS}.submit:submit",
                "many": True,
                "chosen_id": True,
                "statuses": [201, 200],
                "title": 'Create tasks: held (inactive), or with `"state": "available"` to be run',
            },
            "PATCH": {
                "roles": TASK_USERS,
                "function": f"{VERBS}.edit:edit_many",
                "answer": f"{ANSWERS}:CLAIMED",
            },
        },
        "item": {
            "GET": {"roles": READERS},
            "PATCH": {
                "roles": TASK_USERS,
                "function": f"{VERBS}.edit:edit_one",
                "answer": f"{ANSWERS}:CLAIMED",
                "states_of": {"worker": ["available", "running", "pending_cancellation"]},
                "title_in": {"inactive": 'Change the task; `{"state": "available"}` releases it'},
            },
        },
        "related": {"attempts": 'attempts?where={{"task":"{_id}"}}'},
    },
    "attempts": {
        "schema": "banyan.server.schemas.attempts",
        "collection": {"GET": {"roles": TASK_USERS}},
        "item": {"GET": {"roles": TASK_USERS}},
        "related": {
            "task": "tasks/{task}",
            "worker": "workers/{worker}",
            "log": "tasks/{task}/log?attempt={attempt_count}",
        },
    },
    "workers": {
        "schema": "banyan.server.schemas.workers",
        "collection": {
            "GET": {"roles": TASK_USERS},
            "POST": {
                "roles": WORKERS,
                "function": f"{VERBS}.workers:register",
                "answer": f"{ANSWERS}:REGISTERED",
            },
        },
        "item": {
            "GET": {"roles": TASK_USERS},
            "DELETE": {
                "roles": ["operator", "worker"],
                "function": f"{VERBS}.workers:remove",
                "parameters": ["lost"],
            },
        },
        "related": {"attempts": 'attempts?where={{"worker":"{_id}"}}'},
    },
    "accounts": {
        "schema": "banyan.server.schemas.accounts",
        "collection": {
            "GET": {"roles": ["admin"]},
            "POST": {
                "roles": ["admin"],
                "function": f"{VERBS}.accounts:create",
                "answer": f"{ANSWERS}:ACCOUNT_WITH_TOKEN",
            },
        },
        "item": {"GET": {"roles": ["admin"]}},
    },
}

# --- The API: virtual subresources -------------------------------------------------------
# kind     alias | append | remove | action | view
# target   the field behind it; `attempt.<field>` is a field of the current attempt
# roles    who may read (view, readonly alias) or write (the others)
# writers  of an alias that its readers can't write
# states   in which it applies: the links of an item show it there
# levels   item, collection, or both; left out: the item for views, both for the rest
# body     of an action: its schema; where the levels differ, one for each
# answer   of an action or a view: its schema, or `text/plain`; left out: the item, or OK
# in_patch whether an action's body may come as a field of PATCH, too
# status   of the answer, where it is not 200
# parameters  query arguments that it reads; others are refused
_CONTINUATIONS = {
    f"{verb}_{field}": {
        "kind": kind,
        "target": field,
        "roles": [*PROVIDERS, *RUNNING_TASKS] if verb == "add" else PROVIDERS,
        "states": ["inactive"],
        "title": f"{title} {field.replace('_', ' ')}",
    }
    for field in ("continuations", "failure_continuations", "final_continuations")
    for verb, kind, title in (("add", "append", "Add"), ("remove", "remove", "Remove"))
}

_REPORTS = {
    name: {
        "kind": "append",
        "target": f"attempt.{field}",
        "roles": WORKERS,
        "states": ["running", "pending_cancellation"],
        "title": f"Report {field.replace('_', ' ')} of the attempt",
    }
    for name, field in {
        "report_memory_usage": "memory_usage",
        "report_cpu_utilization": "cpu_utilization",
        "report_gpu_usage": "gpu_usage",
        "messages": "messages",
    }.items()
}

_OF_THE_ATTEMPT = ["worker", "exit_status", "time_started", "time_terminated", "memory_usage",
                   "cpu_utilization", "gpu_usage"]  # fmt: skip
_ALIASES = {
    name: {
        "kind": "alias",
        "target": f"attempt.{name}",
        "readonly": True,
        "roles": TASK_USERS,
        "title": f"The current attempt's {name.replace('_', ' ')}",
    }
    for name in _OF_THE_ATTEMPT
}

_ITS_OWN = {"progress": "How far the attempt is", "result": "What the task gives back"}
_TOLD_BY_ITSELF = {
    name: {
        "kind": "alias",
        "target": name,
        "roles": READERS,
        "writers": [*WORKERS, *RUNNING_TASKS],
        "states": ["running", "pending_cancellation"],
        "title": title,
    }
    for name, title in _ITS_OWN.items()
}

VIRTUAL_RESOURCES = {
    "tasks": {
        **_CONTINUATIONS,
        **_REPORTS,
        **_ALIASES,
        "current_attempt": {
            "kind": "alias",
            "target": "attempt",
            "readonly": True,
            "roles": TASK_USERS,
            "title": "The current attempt",
        },
        **_TOLD_BY_ITSELF,
        "claim": {
            "kind": "action",
            "function": f"{VERBS}.take:claim",
            "body": {
                "item": f"{SCHEMAS}.workers:CLAIM_ONE",
                "collection": f"{SCHEMAS}.workers:CLAIM",
            },
            "answer": {"item": f"{ANSWERS}:CLAIMED", "collection": f"{ANSWERS}:CLAIMED_MANY"},
            "roles": WORKERS,
            "states": ["available"],
            "title": "Claim tasks that fit",
        },
        "steal": {
            "kind": "action",
            "levels": ["collection"],
            "function": f"{VERBS}.steal:steal",
            "body": f"{SCHEMAS}.workers:CLAIM",
            "answer": f"{ANSWERS}:CLAIMED_MANY",
            "roles": WORKERS,
            "title": "Take tasks that another worker has claimed and not started",
        },
        "release": {
            "kind": "action",
            "function": f"{VERBS}.release:release",
            "body": {"item": f"{ANSWERS}:RELEASE", "collection": f"{ANSWERS}:RELEASE_MANY"},
            "roles": WORKERS,
            "states": ["running", "pending_cancellation"],
            "title": "Give a claimed task back",
        },
        "cancel": {
            "kind": "action",
            "function": f"{VERBS}.cancel:cancel",
            "body": {"item": f"{ANSWERS}:CANCEL", "collection": f"{ANSWERS}:CANCEL_MANY"},
            "roles": PROVIDERS,
            "states": ["inactive", "available", "running", "pending_cancellation"],
            "title": "Cancel; with `force`, kill it at once",
        },
        "retry": {
            "kind": "action",
            "function": f"{VERBS}.retry:retry",
            "body": {"item": f"{ANSWERS}:RETRY", "collection": f"{ANSWERS}:RETRY_MANY"},
            "roles": PROVIDERS,
            "states": ["terminated", "cancelled"],
            "title": "One more attempt, with other resources where they are given",
        },
        "forget": {
            "kind": "action",
            "function": f"{VERBS}.forget:forget",
            "body": {"item": f"{ANSWERS}:NOTHING", "collection": f"{ANSWERS}:TARGETS"},
            "answer": f"{ANSWERS}:DONE",
            "roles": PROVIDERS,
            "states": ["terminated", "cancelled"],
            "title": "Remove it with its attempts and output",
        },
        "update_execution_data": {
            "kind": "action",
            "levels": ["item"],
            "methods": ["POST", "PATCH"],
            "function": f"{VERBS}.report:update_execution_data",
            "body": f"{SCHEMAS}.attempts:EXECUTION_DATA",
            "in_patch": True,
            "roles": WORKERS,
            "states": ["running", "pending_cancellation"],
            "title": "Report on the attempt",
        },
        "history": {
            "kind": "view",
            "function": f"{VERBS}.history:history",
            "answer": f"{ANSWERS}:HISTORY",
            "roles": TASK_USERS,
            "title": "All attempts",
        },
        "log": {
            "kind": "view",
            "function": f"{VERBS}.log:log",
            "answer": "text/plain",
            "parameters": ["attempt", "offset", "stream"],
            "roles": READERS,
            "title": "The output of an attempt",
        },
        "explain": {
            "kind": "view",
            "function": f"{VERBS}.explain:explain",
            "answer": f"{ANSWERS}:EXPLAIN",
            "roles": TASK_USERS,
            "title": "Why it does not run, or where its time went",
        },
        "estimate": {
            "kind": "view",
            "function": f"{VERBS}.graph:estimate",
            "answer": f"{ANSWERS}:ESTIMATE",
            "roles": TASK_USERS,
            "title": "The time that it and what comes before it still need",
        },
        "graph": {
            "kind": "view",
            "function": f"{VERBS}.graph:graph",
            "answer": f"{ANSWERS}:GRAPH",
            "roles": TASK_USERS,
            "title": "The tasks that hang together with it",
        },
        "script": {
            "kind": "view",
            "function": f"{VERBS}.script:script",
            "answer": "text/plain",
            "roles": TASK_USERS,
            "title": "A shell script that runs it by hand",
        },
        "usage": {
            "kind": "view",
            "levels": ["collection"],
            "function": f"{VERBS}.usage:usage",
            "answer": f"{ANSWERS}:USAGE",
            "parameters": ["window", "from", "to"],
            "roles": PROVIDERS,
            "title": "What each account has used",
        },
        "statistics": {
            "kind": "view",
            "levels": ["item", "collection"],
            "function": f"{VERBS}.statistics:of_tasks",
            "answer": {"item": f"{ANSWERS}:TASK_TIMES", "collection": f"{ANSWERS}:TASKS_COUNTED"},
            "parameters": {
                "collection": ["where", "by", "window", "from", "to", "buckets"],
            },
            "roles": TASK_USERS,
            "title": "Statistics",
        },
    },
    "workers": {
        "beat": {
            "kind": "action",
            "levels": ["item"],
            "function": f"{VERBS}.beat:beat",
            "body": f"{SCHEMAS}.workers:BEAT",
            "answer": f"{ANSWERS}:BEAT",
            "roles": WORKERS,
            "title": "Renew the lease; hear what is to be done",
        },
        "drain": {
            "kind": "action",
            "levels": ["item"],
            "function": f"{VERBS}.workers:drain",
            "body": f"{ANSWERS}:NOTHING",
            "roles": ["operator", "worker"],
            "title": "Finish what runs and take nothing new",
        },
        "resume": {
            "kind": "action",
            "levels": ["item"],
            "function": f"{VERBS}.workers:resume",
            "body": f"{ANSWERS}:NOTHING",
            "roles": ["operator", "worker"],
            "title": "Take tasks again, after a drain",
        },
        "running": {
            "kind": "view",
            "function": f"{VERBS}.workers:running",
            "answer": f"{ANSWERS}:RUNNING",
            "roles": TASK_USERS,
            "title": "The tasks that it holds",
        },
        "statistics": {
            "kind": "view",
            "levels": ["item", "collection"],
            "function": f"{VERBS}.statistics:of_workers",
            "answer": {"item": f"{ANSWERS}:WORKER_NOW", "collection": f"{ANSWERS}:WORKERS_COUNTED"},
            "parameters": {"collection": ["window", "from", "to", "buckets"]},
            "roles": TASK_USERS,
            "title": "Capacity, reserved and used",
        },
    },
    "accounts": {
        "revoke": {
            "kind": "action",
            "levels": ["item"],
            "function": f"{VERBS}.accounts:revoke",
            "body": f"{ANSWERS}:NOTHING",
            "answer": f"{ANSWERS}:REVOKED",
            "roles": ["admin"],
            "title": "Take all its tokens away, and remove its workers",
        },
        "issue": {
            "kind": "action",
            "levels": ["item"],
            "function": f"{VERBS}.accounts:issue",
            "body": f"{SCHEMAS}.accounts:ISSUE",
            "answer": f"{ANSWERS}:TOKEN",
            "status": 201,
            "roles": ["admin"],
            "title": "Give it one more token",
        },
        "tokens": {
            "kind": "view",
            "function": f"{VERBS}.accounts:tokens",
            "answer": f"{ANSWERS}:TOKENS",
            "roles": ["admin"],
            "title": "Its tokens: until when, and when they were used last",
        },
    },
}
