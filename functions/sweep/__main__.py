"""``python -m functions.sweep``: runs one sweep and ends, as a CronJob of Kubernetes does."""

import logging
import sys

from events.errors import Mp3burstError
from functions.sweep.main import sweep_once


def main() -> int:
    """Returns the exit status: 1 if the sweep failed; the next one does what it has left."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        sweep_once()
    except Mp3burstError as error:
        logging.getLogger("functions.sweep").error("the sweep failed: %s", error, exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
