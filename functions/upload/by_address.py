"""Uploads by an address: POST /upload with JSON. The function fetch gets the video from there."""

from collections.abc import MutableMapping
from urllib.parse import unquote, urldefrag, urlsplit

from flask import Request

from events.errors import Mp3burstError
from events.schema import FetchDue
from functions.auth.tokens import Identity
from functions.file_names import base_name
from functions.http_endpoint import Unprocessable, json_object
from functions.media import new_blob_id
from functions.operation import check
from functions.outgoing.addresses import AddressRefused, Policy
from functions.rate_limits import Tell
from functions.state.fetches import Source
from functions.state.jobs import Job, NewJob, new_job_id
from functions.state.outbox import REQUEST_BUDGET
from functions.upload.api import UploadAddress
from functions.upload.callback import take_callback
from functions.upload.dependencies import Dependencies
from functions.upload.multipart import parse_options, query_fields


class FetchingOff(Mp3burstError):
    """FETCH_URLS is not on."""

    status = 403

    def __init__(self) -> None:
        """Uses the one message there is for it."""
        super().__init__("This server does not fetch files from addresses: download the file, and upload it.")


def read_fields(request: Request, deps: Dependencies) -> dict[str, str]:
    """Returns what an upload by an address says: its JSON, and its query where that says no more.

    Raises:
        FetchingOff: the installation does not fetch files.
        BadRequest: it is not a JSON object.
        Unprocessable: a field is missing or no text.
    """
    _sources(deps)
    given = json_object(request)
    if faults := check(UploadAddress, given).faults:
        raise Unprocessable.naming(faults)
    return {**query_fields(request), **{name: str(value) for name, value in given.items() if value is not None}}


def create_fetch(
    fields: MutableMapping[str, str], identity: Identity, key: str | None, deps: Dependencies, tell: Tell | None = None
) -> Job:
    """Records a job whose video is to be fetched, and publishes FetchDue.

    Args:
        fields: ``url``, and what an upload may say beside its file.
        identity: the owner.
        key: the Idempotency-Key; no job has it yet.
        deps: the function's dependencies.
        tell: is told what is left of the owner's quota.

    Returns:
        The job: of concurrent requests with the same key all get the same one.

    Raises:
        FetchingOff: the installation does not fetch files.
        Unprocessable: the address, an option or the callback is invalid.
        AllowanceUsedUp: the user has had too many files fetched.
        TooManyJobs, QuotaFull: the user's quota is used up.
        DiskFull: the media store has too little space left.
    """
    url = _checked(fields.pop("url"), _sources(deps))
    given = fields.pop("filename", "")
    filename = base_name(given or unquote(urlsplit(url).path, errors="replace"))
    callback = take_callback(fields, deps.callbacks)
    options = parse_options(fields, deps.presets, identity.user)
    deps.space.require()
    deps.fetch_limit.use(identity.user)
    new = NewJob(new_job_id(), identity.user, new_blob_id(), filename, options, key, callback=callback)
    job = deps.fetches.add(new, Source(url, is_named=bool(given)), deps.quota.begin(identity, None, tell=tell))
    if job.id == new.id:
        deps.outbox.emit(FetchDue(job.id), REQUEST_BUDGET)
    return job


def _sources(deps: Dependencies) -> Policy:
    """Returns the addresses that files may be fetched from; raises FetchingOff if they may not."""
    if deps.sources is None:
        raise FetchingOff
    return deps.sources


def _checked(text: str, policy: Policy) -> str:
    """Returns the address without its fragment, which is not part of a request.

    Its host is resolved by fetch alone, at each attempt.

    Raises:
        Unprocessable: it is not allowed, whatever a name server would say.
    """
    try:
        url = urldefrag(text.strip()).url
        policy.parse(url)
    except AddressRefused as error:
        raise Unprocessable(f"The address of the file {error.what}.", {"url": error.what}) from error
    except ValueError as error:
        raise Unprocessable("The address of the file is not a valid URL.", {"url": "is not a valid URL"}) from error
    return url
