"""What a process does before its first request, so that nobody waits for it: imports, keys, and connections.

A pod listens up to a second before Kubernetes has told Knative its address.
"""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from events.errors import Mp3burstError

Step = TypeVar("Step", bound=Callable[[], object])

_STEPS: Final[list[Callable[[], object]]] = []
log = logging.getLogger(__name__)


def before_first_request(step: Step) -> Step:
    """Has the server call a function once, while it already serves.

    It must change nothing, since a request may come first, or at the same time.
    """
    _STEPS.append(step)
    return step


def warm_up() -> None:
    """Takes all steps. Those that fail are left to the first request that needs them, which says what is wrong."""
    for step in _STEPS:
        try:
            step()
        except Mp3burstError as error:
            log.info("A step before the first request failed: %s", error)
