"""Errors of seeking."""


class TrackChanged(Exception):
    """The bytes that were read are not those that were stored."""
