"""Sends the mail that tells of a finished or failed job."""

import functools
import logging
import os
import time
from dataclasses import dataclass, field
from typing import Final

import functions_framework
from cloudevents.http import CloudEvent

from events.schema import Mp3Ready
from functions.auth.links import Links
from functions.event_endpoint import handling, received
from functions.notify import message
from functions.notify.transports import Mail, MailRefused, Send, mailer, message_id_of
from functions.state.database import Database, DatabaseUnavailable, url
from functions.state.leases import Lease, LeaseLost
from functions.state.mails import Addressee, Mails

#: Seconds that a mail which is out is kept in mind while the database is away; the request may last 120.
_PATIENCE: Final = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a mail takes. ``out`` has the events whose mail is out and not on record yet."""

    mails: Mails
    links: Links
    send: Send
    out: set[str] = field(default_factory=set)


@functions_framework.cloud_event
def notify(event: CloudEvent) -> None:
    """Eats dev.mp3burst.mp3.ready and dev.mp3burst.conversion.failed."""
    if (ended := received(event)) is not None:
        with handling(ended):
            send_mail(ended.id, dependencies())


def send_mail(event: str, deps: Dependencies) -> None:
    """Send the mail of this event, unless it is sent or another sends it.

    A worker that ends between the server's yes and ``sent`` lets another send the mail again, under the same
    Message-ID; so does one from which the database is away just then, for longer than the lease lasts, where another
    comes first once it is back. Nothing else sends one twice.

    Raises:
        TryAgain: the mail could not be sent for now; it has been given back.
    """
    lease = deps.mails.claim(event)
    if lease is None:
        log.info("mail %s: sent, or another sends it", event)
        return
    if event in deps.out:
        _record(event, lease, deps)
        return
    to = deps.mails.addressee(lease)
    if to is None:
        deps.mails.abandon(lease)
        return
    try:
        with deps.mails.renewing(lease) as keeper:
            mail = write(event, lease, to, deps.links)
            keeper.check()
            deps.send(mail)
    except MailRefused:
        log.exception("job %s: mail %s is refused for good", to.job.id, event)
        deps.mails.abandon(lease)
        return
    except LeaseLost:
        raise
    except Exception:
        deps.mails.release(lease)
        raise
    deps.out.add(event)
    log.info("job %s: mail %s is sent", to.job.id, event)
    _record(event, lease, deps)


def _record(event: str, lease: Lease, deps: Dependencies) -> None:
    """Record that the mail is out, however long the database takes to come back: nobody may send it once more.

    Raises:
        DatabaseUnavailable: it takes longer than the request may. The event's next try finds the mail in ``out``.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            deps.mails.sent(lease)
            deps.out.discard(event)
            return
        except DatabaseUnavailable:
            if time.monotonic() > deadline:
                raise
            log.warning("mail %s is out, and the database is away; it is recorded later", event)
        time.sleep(0.2)


def write(event: str, lease: Lease, to: Addressee, links: Links) -> Mail:
    """The letter that the mail's row asks for."""
    job = to.job
    recipient = message.Recipient(to.user.name, to.user.email)
    message_id = message_id_of(event)
    if lease.row.kind == Mp3Ready.type:
        mp3 = message.Mp3(job.mp3, job.filename, job.duration, job.warning)
        link = message.DownloadLink(links.make(to.user.id, job.mp3), links.days)
        return message.ready(recipient, mp3, link, message_id)
    return message.failed(recipient, job.filename, job.error, message_id)


@functools.cache
def dependencies() -> Dependencies:
    """Connect to what the environment names, once per process."""
    return Dependencies(Mails(Database(url(os.environ))), Links.from_environ(os.environ), mailer(os.environ))
