"""How the steps of a conversion report progress to their caller, which may stop them."""

from collections.abc import Callable
from typing import Final

#: Called with the fraction that is done, 0 to 1. An exception that it raises stops the work.
OnProgress = Callable[[float], None]
#: Seconds between two calls of a progress function, at most.
HEARTBEAT: Final = 0.5
