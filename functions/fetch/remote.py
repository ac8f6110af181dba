"""Files on the servers of others, over HTTP (RFC 9110): redirects, ranges, and what the answers mean.

A file is continued only if its server names the version of it that is there: by a strong ETag, or by a date that is old
enough. If-Range then makes sure that bytes of two versions are never put together.
"""

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from typing import Final
from urllib.parse import quote, urldefrag, urljoin

from werkzeug.http import parse_options_header

from events.errors import Mp3burstError, PermanentFailure, TryAgain
from functions import code_pages
from functions.file_names import base_name
from functions.outgoing.addresses import AddressRefused, HostUnknown, Policy
from functions.outgoing.client import Limits, Response, TlsFailure, opened
from functions.state.fetches import Source

#: Redirects that are followed, each to an address that is checked like the first.
MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_OK: Final = 200
_PARTIAL: Final = 206
_RANGE_WRONG: Final = 416
#: Statuses by which a server asks to come back later, beside those from 500 on.
_LATER: Final = (408, 425, 429)
_NOT_FOUND: Final = (404, 410)
_DENIED: Final = (401, 402, 403, 407, 451)
#: Seconds by which a date must be older than the response, so that the file cannot have had two versions with it.
_OLD_ENOUGH: Final = 60
#: Characters of a validator.
_MAX_VALIDATOR: Final = 500
_NUMBER: Final = re.compile("[0-9]{1,15}", re.ASCII)
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)", re.ASCII | re.IGNORECASE)
_STRONG_ETAG: Final = re.compile(r'"[!#-~]*"', re.ASCII)
#: Characters that an address has as they are; others are quoted. Some servers redirect to addresses with spaces.
_URL_CHARACTERS: Final = ":/?#[]@!$&'()*+,;=%~"


class FetchFailed(PermanentFailure):
    """The file cannot be fetched.

    Attributes:
        code: what went wrong, for programs.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SourceUnavailable(TryAgain):
    """The file's server cannot send it now.

    Attributes:
        code: what went wrong, for programs, if it stays so.
        retry_after: the value of its header Retry-After, if it has sent one.
    """

    def __init__(self, code: str, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class RangeRefused(Mp3burstError):
    """The server does not continue the file where it was interrupted: it is fetched from its beginning."""

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("The server does not continue the file.")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file, or the rest of one, that is arriving.

    Attributes:
        start: where it begins in the file, in bytes.
        length: bytes of the whole file; None if the server does not say.
        validator: as in ``Source``.
        filename: what the server calls the file; empty if it does not say.
        is_page: whether the server says that it is HTML.
        response: has the bytes.
    """

    start: int
    length: int | None
    validator: str
    filename: str
    is_page: bool
    response: Response


@contextlib.contextmanager
def arriving(source: Source, policy: Policy, limits: Limits) -> Iterator[Arrival]:
    """Asks for a file, or for the rest of it, and yields it once the server has begun to answer.

    Args:
        source: the file, and what is there of it.
        policy: the addresses that are allowed, also behind redirects.
        limits: of all requests together.

    Raises:
        FetchFailed: the file cannot be fetched from there.
        SourceUnavailable: the server cannot send it now.
        RangeRefused: the server does not continue it.
        NoReply: there was no answer, or the connection was lost.
    """
    headers = {"Accept": "*/*"}
    if source.received and source.validator:
        headers |= {"Range": f"bytes={source.received}-", "If-Range": source.validator}
    url = source.url
    for _ in range(MAX_REDIRECTS + 1):
        with _response(url, policy, headers, limits) as response:
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                yield _arrival(response, source)
                return
        url = _redirected(url, location)
    raise FetchFailed("too-many-redirects", f"The address leads to more than {MAX_REDIRECTS} others: use the last one.")


@contextlib.contextmanager
def _response(url: str, policy: Policy, headers: dict[str, str], limits: Limits) -> Iterator[Response]:
    """Yields the response of one hop."""
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(opened(policy.parse(url), policy, headers, limits))
        except AddressRefused as error:
            raise _refused(error) from error
        except HostUnknown as error:
            raise _unknown(error) from error
        except TlsFailure as error:
            raise FetchFailed("tls-failure", f"{error} The file cannot be fetched from there.") from error
        yield response


def _redirected(url: str, location: str) -> str:
    """Returns the address to which one redirects."""
    quoted = quote(location.encode("latin-1", "replace"), safe=_URL_CHARACTERS)
    try:
        return urldefrag(urljoin(url, quoted)).url
    except ValueError as error:
        raise _refused(AddressRefused("is not a valid URL")) from error


def _refused(error: AddressRefused) -> FetchFailed:
    return FetchFailed("address-refused", f"The address of the file, or one that it leads to, {error.what}.")


def _unknown(error: HostUnknown) -> Exception:
    cause = error.__cause__
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN:
        return SourceUnavailable("host-unknown", "The host in the address could not be looked up: try again later.")
    return FetchFailed("host-unknown", "The host in the address has no IP address: check its name.")


def _arrival(response: Response, source: Source) -> Arrival:
    """Returns what a final response brings; raises as ``arriving`` does."""
    _check_status(response)
    headers = response.headers
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise FetchFailed("source-error", "The server sends the file compressed, without being asked to.")
    start, length = _extent(response, source)
    return Arrival(
        start=start,
        length=length,
        # The rest of a file is of the version that was asked for, which need not be named again (RFC 9110, 15.3.7).
        validator=source.validator if start else _validator(headers),
        filename=_filename(headers),
        is_page=headers.get_content_type() in ("text/html", "application/xhtml+xml"),
        response=response,
    )


def _check_status(response: Response) -> None:
    status = response.status
    if status in (_OK, _PARTIAL):
        return
    if status == _RANGE_WRONG:
        raise RangeRefused
    if status in _NOT_FOUND:
        raise FetchFailed("source-not-found", f"There is no file at the address (status {status}): check it.")
    if status in _DENIED:
        raise FetchFailed(
            "source-denied", f"The server does not give the file to everyone (status {status}): download it yourself."
        )
    if status in _LATER or status >= 500:
        raise SourceUnavailable(
            "source-unavailable",
            f"The server could not send the file (status {status}): try again later.",
            response.headers.get("Retry-After"),
        )
    raise FetchFailed("source-error", f"The server did not send the file (status {status}): check the address.")


def _extent(response: Response, source: Source) -> tuple[int, int | None]:
    """Returns where the response begins in the file, and the length of the file."""
    headers = response.headers
    if response.status == _OK:
        length = headers.get("Content-Length", "").strip()
        is_known = _NUMBER.fullmatch(length) and "Transfer-Encoding" not in headers
        return 0, int(length) if is_known else None
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != source.received or _is_other(_validator(headers), source.validator):
        raise RangeRefused
    total = None if found[3] == "*" else int(found[3])
    if total is not None and source.length not in (None, total):
        raise RangeRefused
    is_whole_rest = total is None or int(found[2]) == total - 1
    if not is_whole_rest:
        raise RangeRefused
    return source.received, total if total is not None else source.length


def _validator(headers: HTTPMessage) -> str:
    """Returns what names this version of the file, for If-Range; empty if nothing does (RFC 9110, 8.8 and 13.1.5)."""
    if headers.get("Accept-Ranges", "").strip().lower() == "none":
        return ""
    tag = headers.get("ETag", "").strip()
    if tag:
        return tag if len(tag) <= _MAX_VALIDATOR and _STRONG_ETAG.fullmatch(tag) else ""
    modified = headers.get("Last-Modified", "").strip()
    if len(modified) > _MAX_VALIDATOR or not modified.isascii() or not modified.isprintable():
        return ""
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (ValueError, TypeError, OverflowError):
        return ""
    return modified if age.total_seconds() >= _OLD_ENOUGH else ""


def _is_other(validator: str, wanted: str) -> bool:
    """Returns whether a validator names another version: an ETag and a date cannot be compared."""
    return bool(validator) and validator != wanted and _is_tag(validator) == _is_tag(wanted)


def _is_tag(validator: str) -> bool:
    return validator.startswith('"')


def _filename(headers: HTTPMessage) -> str:
    """Returns the name in Content-Disposition; empty if there is none."""
    disposition = headers.get("Content-Disposition", "")
    name = parse_options_header(disposition)[1].get("filename", "") if disposition else ""
    with contextlib.suppress(UnicodeEncodeError):  # what has been decoded already
        name = code_pages.decode(name.encode("latin-1"))
    return base_name(name) if name.strip() else ""
