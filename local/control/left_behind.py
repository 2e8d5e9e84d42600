"""Which containers a job or an endpoint still needs; all others of a state directory are left over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line asks for the rule before it needs a database
    from byoa.local.storage.state import State


def busy_names(state: State) -> set[str]:
    """Names of the jobs and endpoints that have not ended."""
    jobs = {
        row.name for row in state.list("training-job", None)
        if row.status in ("InProgress", "Stopping")
    }
    return jobs | {row.name for row in state.list("endpoint", None)}


def wanted(state: State) -> Callable[[str], bool]:
    """Whether a container's or network's name is one that a job or endpoint may ask for again.

    Their names hold the job's or endpoint's: in doubt something is kept, not removed.
    """
    busy = [f"-{name}-" for name in busy_names(state)]
    return lambda name: any(each in f"-{name}-" for each in busy)
