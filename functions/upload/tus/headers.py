"""Parses and validates the headers of tus 1.0 (https://tus.io/protocols/resumable-upload)."""

import base64
import binascii
import hashlib
import re
from typing import Final

from werkzeug.datastructures import Headers

from events.errors import Mp3burstError
from functions import code_pages
from functions.http_endpoint import BadRequest
from functions.upload.tus.api import MAX_METADATA

CHECKSUM_ALGORITHMS: Final = ("sha1", "sha256")
#: The largest integer that every database and every client's JSON can represent.
_MAX_SIZE: Final = 2**53 - 1
_DIGITS: Final = re.compile("[0-9]{1,16}")
#: Metadata that clients send about a file on their own account. It is no option and is ignored here.
_IGNORED_KEYS: Final = {
    *("filename", "name", "filetype", "type", "contentType", "contenttype"),
    *("relativePath", "relativepath", "size", "lastModified", "lastmodified"),
}


class ChecksumMismatch(Mp3burstError):
    """The body that arrived is not the one that the client computed the checksum of."""

    status = 460  # tus 1.0, Checksum


class Checksum:
    """Compares a request's body with the checksum that its header announces."""

    def __init__(self, header: str) -> None:
        """Parses ``Upload-Checksum: ALGORITHM BASE64``.

        Raises:
            BadRequest: it is malformed, or its algorithm is not supported.
        """
        algorithm, _, text = header.strip().partition(" ")
        if algorithm not in CHECKSUM_ALGORITHMS:
            raise BadRequest(f"Upload-Checksum must begin with one of {', '.join(CHECKSUM_ALGORITHMS)}.")
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._expected = _decode_base64("Upload-Checksum", text.strip())
        if len(self._expected) != self._hash.digest_size:
            raise BadRequest(f"Upload-Checksum must be a {algorithm} digest in Base64.")

    def update(self, data: bytes) -> None:
        """Adds bytes of the body."""
        self._hash.update(data)

    def check(self) -> None:
        """Raises ChecksumMismatch unless the bytes so far have the announced checksum."""
        if self._hash.digest() != self._expected:
            raise ChecksumMismatch("The bytes were damaged in transit and have been discarded: send them again.")


def byte_count(headers: Headers, name: str) -> int | None:
    """Returns the value of a header that is a number of bytes, or None without that header.

    Raises:
        BadRequest: the value is not a number of bytes.
    """
    text = headers.get(name)
    if text is None:
        return None
    if not _DIGITS.fullmatch(text) or int(text) > _MAX_SIZE:
        raise BadRequest(f"{name} must be a whole number of bytes.")
    return int(text)


def length_of_new_upload(headers: Headers) -> int | None:
    """Returns the length of an upload that is to be created, or None if the client will send it later.

    Raises:
        BadRequest: a header is malformed, or there is not exactly one of Upload-Length and Upload-Defer-Length.
    """
    length = byte_count(headers, "Upload-Length")
    deferred = headers.get("Upload-Defer-Length")
    if deferred not in (None, "1") or (length is None) == (deferred is None):
        raise BadRequest("Send either Upload-Length, or Upload-Defer-Length: 1.")
    return length


def parse_metadata(header: str) -> tuple[str, dict[str, str]]:
    """Parses ``Upload-Metadata: KEY BASE64,KEY BASE64``.

    Returns:
        The file's name, or an empty string, and the options by name.

    Raises:
        BadRequest: the header is malformed or too long, or a key occurs twice.
    """
    if len(header) > MAX_METADATA:
        raise BadRequest(f"Upload-Metadata is too long: send at most {MAX_METADATA} bytes.")
    values: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else []:
        key, _, text = pair.strip().partition(" ")
        if not key or key in values:
            raise BadRequest("Upload-Metadata must be KEY BASE64,KEY BASE64 with every key only once.")
        values[key] = code_pages.decode(_decode_base64("Upload-Metadata", text.strip())).strip()
    filename = values.get("filename") or values.get("name") or ""
    return filename, {key: value for key, value in values.items() if value and key not in _IGNORED_KEYS}


def _decode_base64(header: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{header} is not valid Base64.") from error
