"""What must be true of a database of Banyan's at any time, checked on a living one.

`examine` looks, `repair` mends what the server's own rules can mend. Used by `banyan doctor`
and by the tests. Each check is a file: a function from a Batch to Findings.
"""

from banyan.server.doctor.access import database
from banyan.server.doctor.examine import examine
from banyan.server.doctor.finding import Finding
from banyan.server.doctor.leaks import notes
from banyan.server.doctor.repair import repair

__all__ = ["Finding", "database", "examine", "notes", "repair"]
