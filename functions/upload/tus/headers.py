"""What tus 1.0 says in headers (https://tus.io/protocols/resumable-upload), read and checked."""

import base64
import binascii
import hashlib
import re
from typing import Final

from werkzeug.datastructures import Headers

from events.errors import Mp3burstError
from functions.http_endpoint import BadRequest

VERSION: Final = "1.0.0"
ALGORITHMS: Final = ("sha1", "sha256")
#: Integers that every database and every client's JSON can hold.
_MOST: Final = 2**53 - 1
_NUMBER: Final = re.compile("[0-9]{1,16}")
#: What clients say of a file on their own account; it is no option and means nothing here.
_IGNORED: Final = {
    *("filename", "name", "filetype", "type", "contentType", "contenttype"),
    *("relativePath", "relativepath", "size", "lastModified", "lastmodified"),
}


class ChecksumMismatch(Mp3burstError):
    """The bytes that came are not those that were sent."""

    status = 460  # tus 1.0, Checksum


class Checksum:
    """The checksum that a request says its body has."""

    def __init__(self, header: str) -> None:
        """Read ``Upload-Checksum: ALGORITHM BASE64``; BadRequest where it is malformed, or of another algorithm."""
        algorithm, _, text = header.strip().partition(" ")
        if algorithm not in ALGORITHMS:
            raise BadRequest(f"Upload-Checksum must begin with one of {', '.join(ALGORITHMS)}.")
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._expected = _decoded("Upload-Checksum", text.strip())
        if len(self._expected) != self._hash.digest_size:
            raise BadRequest(f"Upload-Checksum is no {algorithm} in Base64.")

    def update(self, data: bytes) -> None:
        """Add bytes of the body."""
        self._hash.update(data)

    def check(self) -> None:
        """Raise ChecksumMismatch if the bytes were others."""
        if self._hash.digest() != self._expected:
            raise ChecksumMismatch("The bytes were damaged on their way and are not kept: send them again.")


def number(headers: Headers, name: str) -> int | None:
    """A header that is a number of bytes; None where it is not there.

    Raises:
        BadRequest: it is no such number.
    """
    text = headers.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or int(text) > _MOST:
        raise BadRequest(f"{name} must be a whole number of bytes.")
    return int(text)


def new_length(headers: Headers) -> int | None:
    """The length of an upload that is to be made; None where it is told later.

    Raises:
        BadRequest: Upload-Length and Upload-Defer-Length are both missing, or both there, or malformed.
    """
    length, later = number(headers, "Upload-Length"), headers.get("Upload-Defer-Length")
    if later not in (None, "1") or (length is None) == (later is None):
        raise BadRequest("Send either Upload-Length, or Upload-Defer-Length: 1.")
    return length


def metadata(header: str) -> tuple[str, dict[str, str]]:
    """The file's name, empty where there is none, and the fields that are options.

    Raises:
        BadRequest: the header is not ``KEY BASE64,KEY BASE64``, or a key comes twice.
    """
    found: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else []:
        key, _, text = pair.strip().partition(" ")
        if not key or key in found:
            raise BadRequest("Upload-Metadata must be KEY BASE64,KEY BASE64, each key once.")
        found[key] = _decoded("Upload-Metadata", text.strip()).decode("utf-8", "replace").strip()
    name = found.get("filename") or found.get("name") or ""
    return name, {key: value for key, value in found.items() if value and key not in _IGNORED}


def _decoded(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{name} is not in Base64.") from error
