"""What a process does before its first request: it checks what it cannot work without, and then prepares the rest.

Checks come before it listens. Nobody waits for the rest (imports, keys, and connections), which a pod does while it
listens already: up to a second before Kubernetes has told Knative its address.
"""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from events.errors import Mp3burstError

Step = TypeVar("Step", bound=Callable[[], object])

_CHECKS: Final[list[Callable[[], object]]] = []
_STEPS: Final[list[Callable[[], object]]] = []
log = logging.getLogger(__name__)


def before_serving(check: Step) -> Step:
    """Has the server call a function once, before it listens. An error of ours that it raises ends the process."""
    _CHECKS.append(check)
    return check


def before_first_request(step: Step) -> Step:
    """Has the server call a function once, while it already serves.

    It must change nothing, since a request may come first, or at the same time.
    """
    _STEPS.append(step)
    return step


def check() -> None:
    """Makes all checks.

    Raises:
        Mp3burstError: what the first check raises that fails.
    """
    for each in _CHECKS:
        each()


def warm_up() -> None:
    """Takes all steps. Those that fail are left to the first request that needs them, which says what is wrong."""
    for step in _STEPS:
        try:
            step()
        except Mp3burstError as error:
            log.info("A step before the first request failed: %s", error)
        except Exception:
            log.exception("A step before the first request failed")
