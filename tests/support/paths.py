"""Paths of the repository."""

from pathlib import Path

#: The top-level directory.
ROOT = Path(__file__).resolve().parents[2]
