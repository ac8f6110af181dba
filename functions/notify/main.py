"""Sends the mails that announce a finished or failed job, ask to confirm an address, or reset a password."""

import functools
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Final

import functions_framework
from cloudevents.http import CloudEvent

from events.schema import Mp3Ready, PasswordForgotten
from functions.auth.links import Links
from functions.event_endpoint import handling, received
from functions.notify import message
from functions.notify.transports import Mail, MailRefused, Send, mailer, message_id_of
from functions.state.database import DatabaseUnavailable, shared
from functions.state.leases import Lease, LeaseRenewer, attempt
from functions.state.mails import Addressee, MailRow, Mails

#: Seconds to keep trying to record that a mail was sent while the database is unavailable; a request may last 120.
_RECORDING_SECONDS: Final = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What sending a mail needs.

    Attributes:
        mails: the mails table.
        links: makes the links in mails.
        send: hands a mail to the mail server.
        unrecorded: the events whose mail this process has sent, but not yet recorded as sent.
    """

    mails: Mails
    links: Links
    send: Send
    unrecorded: set[str] = field(default_factory=set)


@functions_framework.cloud_event
def notify(event: CloudEvent) -> None:
    """Handles mp3.ready, conversion.failed, address.unconfirmed and password.forgotten of dev.mp3burst."""
    if (announced := received(event)) is not None:
        with handling(announced):
            send_mail(announced.id, dependencies())


def send_mail(event: str, deps: Dependencies) -> None:
    """Sends the mail of this event, unless it was sent already or another worker is sending it.

    A mail about a job goes only to a user who has confirmed the address and has not unsubscribed, and a link that
    resets a password only to a confirmed address; otherwise the mail is recorded as skipped, for good.

    The mail is sent twice, under the same Message-ID, in three cases: this worker is killed after the mail server has
    accepted the mail and before that is recorded; the mail server's answer that it has is lost or comes too late
    (``functions/notify/transports.py``), so that the mail counts as not sent; or the database is unavailable from the
    call of the mail server on, before which the lease is renewed, for longer than the lease lasts, and another worker
    claims the mail first once it is back.

    Raises:
        TryAgain: the mail could not be sent or recorded for now, and has been released.
        LeaseLost: another worker has the mail.
    """
    lease = deps.mails.claim(event)
    if lease is None:
        log.info("mail %s: already sent, or another worker is sending it", event)
        return
    if event not in deps.unrecorded:
        work = functools.partial(_send, event, lease, deps)
        attempt(deps.mails, lease, work, f"{lease.row.event.about}: mail {event}")
    if event in deps.unrecorded:
        _record(event, lease, deps)


def _send(event: str, lease: Lease[MailRow], deps: Dependencies, renewer: LeaseRenewer) -> None:
    about = lease.row.event.about
    addressee = deps.mails.addressee(lease)
    if addressee is None:
        log.info("%s: mail %s is skipped: the user or the job does not exist", about, event)
        deps.mails.skip(lease)
        return
    if reason := addressee.why_not(lease.row.kind):
        log.info("%s: mail %s is skipped: %s", about, event, reason)
        deps.mails.skip(lease)
        return
    try:
        mail = write(event, lease, addressee, deps.links)
        renewer.renew()
        deps.send(mail)
    except MailRefused:
        log.exception("%s: mail %s was refused", about, event)
        raise
    deps.unrecorded.add(event)
    log.info("%s: mail %s was sent", about, event)


def _record(event: str, lease: Lease[MailRow], deps: Dependencies) -> None:
    """Records that the mail was sent, waiting for the database if necessary, so that it is not sent again.

    Raises:
        DatabaseUnavailable: it takes longer than the request may. The event's next delivery tries to record it again.
    """
    deadline = time.monotonic() + _RECORDING_SECONDS
    while True:
        try:
            deps.mails.sent(lease)
            deps.unrecorded.discard(event)
            return
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            log.warning("mail %s was sent, but the database is unavailable; trying again to record it", event)
        time.sleep(0.2)


def write(event: str, lease: Lease[MailRow], addressee: Addressee, links: Links) -> Mail:
    """Writes the mail that the row asks for."""
    job = addressee.job
    message_id = message_id_of(event)
    if lease.row.kind == PasswordForgotten.type:
        url = links.make_reset(addressee.user, addressee.token_version, addressee.email)
        return message.reset(addressee.email, links.public_url, url, message_id)
    if job is None:
        link = message.Link(links.make_confirmation(addressee.user, addressee.email), links.days)
        return message.confirm(addressee.email, links.public_url, link, message_id)
    unsubscribe = links.make_unsubscription(addressee.user)
    recipient = message.Recipient(addressee.name, addressee.email, unsubscribe)
    if lease.row.kind == Mp3Ready.type:
        fid = job.mp3 or ""
        mp3 = message.Mp3(fid, job.filename, job.duration, job.warning)
        link = message.Link(links.make(job.owner, fid), links.days)
        return message.ready(recipient, mp3, link, message_id)
    return message.failed(recipient, job.filename, job.error or "", message_id)


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    return Dependencies(Mails(shared(os.environ)), Links.from_environ(os.environ), mailer(os.environ))
