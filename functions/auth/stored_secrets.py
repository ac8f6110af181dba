"""Secrets that users hand out, such as API keys and shared links: the database has a digest of each and no more."""

import hashlib


def digest(secret: str) -> str:
    """Returns what is stored of a secret: its SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
