"""The podcast feed of a user: RSS 2.0 (https://www.rssboard.org/rss-specification) with the extensions of Apple."""

import re
from collections.abc import Iterable
from email.utils import formatdate
from typing import Final
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from functions.auth.links import Links
from functions.mp3.names import mp3_name
from functions.state.jobs import Job

#: Jobs whose MP3s are in a feed, the newest.
MAX_JOBS: Final = 300
_ITUNES: Final = "http://www.itunes.com/dtds/podcast-1.0.dtd"
#: Characters that XML does not take (https://www.w3.org/TR/xml/#charsets).
_UNSAFE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Once: it changes a table of the process, which other threads are reading.
register_namespace("itunes", _ITUNES)


def rss(name: str, jobs: Iterable[Job], links: Links, secret: str) -> bytes:
    """Returns the feed of a user.

    Args:
        name: the user's.
        jobs: the user's, newest first; those that are not done are left out.
        links: makes addresses.
        secret: the feed's.

    Raises:
        BadSetting: PUBLIC_URL is not set.
    """
    root = Element("rss", {"version": "2.0"})
    channel = SubElement(root, "channel")
    _add(channel, "title", f"MP3s of {name}")
    _add(channel, "link", links.public_url)
    _add(channel, "description", "Converted by mp3burst.")
    _add(channel, f"{{{_ITUNES}}}block", "Yes")  # no directory of podcasts is to list it
    for job in jobs:
        if job.mp3 is not None and job.state == "done":
            _add_item(channel, job, links, secret)
    content: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _add_item(channel: Element, job: Job, links: Links, secret: str) -> None:
    mp3 = job.stored.mp3
    item = SubElement(channel, "item")
    _add(item, "title", mp3_name(job.filename).removesuffix(".mp3"))
    _add(item, "guid", mp3).set("isPermaLink", "false")
    _add(item, "pubDate", formatdate(job.created_at / 1000, usegmt=True))
    size = str(job.record.mp3_size or 0)
    SubElement(item, "enclosure", {"url": links.download_url(mp3, secret), "length": size, "type": "audio/mpeg"})
    if job.duration is not None:
        _add(item, f"{{{_ITUNES}}}duration", str(round(job.duration)))


def _add(parent: Element, name: str, text: str) -> Element:
    child = SubElement(parent, name)
    child.text = _UNSAFE.sub("", text)
    return child
