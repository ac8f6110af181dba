"""The podcast feed is well-formed whatever videos are called, and has the MP3s that exist."""

from dataclasses import replace
from types import MappingProxyType
from xml.etree import ElementTree

import pytest

from functions.auth.links import Links
from functions.download.feed import rss
from tests.support.finished import DONE

LINKS = Links(["k" * 32], "https://mp3burst.test/")


def test_names_cannot_break_the_feed() -> None:
    name = "]]></title>\x00\x1b\ud800\ufffe&amp;<b>é"
    root = ElementTree.fromstring(rss(name, [replace(DONE, filename=f"{name}.mp4")], LINKS, "a&b"))  # noqa: S314 - ours
    clean = "]]></title>&amp;<b>é"
    assert root.findtext("channel/title") == f"MP3s of {clean}"
    assert root.findtext("channel/item/title") == clean
    enclosure = root.find("channel/item/enclosure")
    assert enclosure is not None
    assert enclosure.get("url") == f"https://mp3burst.test/download?fid={'d' * 24}&token=a%26b"
    assert root.findtext("channel/item/pubDate") == "Tue, 14 Nov 2023 22:13:20 GMT"


def test_jobs_without_an_mp3_are_left_out() -> None:
    others = [replace(DONE, state="converting", mp3=None), replace(DONE, state="failed", mp3=None)]
    root = ElementTree.fromstring(rss("Ann", [*others, DONE], LINKS, "secret"))  # noqa: S314 - ours
    assert [each.text for each in root.findall("channel/item/guid")] == [DONE.mp3]


def test_feed_changes_nothing_that_other_threads_read(monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = ElementTree._namespace_map  # type: ignore[attr-defined]
    monkeypatch.setattr(ElementTree, "_namespace_map", MappingProxyType(namespaces))
    assert b"<itunes:block>" in rss("Ann", [DONE], LINKS, "secret")
