"""Where the checkout is."""

from pathlib import Path

#: The repository's top level.
ROOT = Path(__file__).resolve().parents[2]
