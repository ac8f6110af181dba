"""Tags that are read and changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.mp3 import id3, tags
from functions.mp3.chapters import Chapter

PNG = b"\x89PNG\r\n\x1a\n picture"
SOURCE = {
    "title": "Title",
    "artist": "Ada; Bob",
    "date": "2020-03-31",
    "track": "3",
    "tracktotal": "9",
    "comment": "first\nsecond",
    "lyrics-deu": "la la",
    "musicbrainztrackid": "an-id",
    "replaygaintrackgain": "-3 dB",
}
CHAPTERS = (Chapter(0, 1.5, "one"), Chapter(1.5, 3, "two"))
MADE = id3.build_tag(SOURCE, "f.mp4", PNG, CHAPTERS)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def test_what_a_conversion_has_written_is_read() -> None:
    found = tags.read(MADE)
    assert found.fields == {
        "title": "Title",
        "artist": "Ada/Bob",
        "date": "2020-03-31",
        "track": "3/9",
        "comment": "first\nsecond",
        "lyrics": "la la",
    }
    assert tuple(found.chapters) == CHAPTERS
    assert found.cover == PNG
    assert tags.size_of(MADE + b"\xff\xfb\x90\x00") == len(MADE)


def test_no_change_leaves_every_byte() -> None:
    assert tags.change(MADE, {}) == MADE


def test_change_equals_a_conversion_with_these_tags() -> None:
    changed = tags.change(MADE, {"title": "New", "date": "1999", "album_artist": "Eve"}, CHAPTERS[:1], b"")
    wanted = {**SOURCE, "title": "New", "date": "1999", "albumartist": "Eve"}
    assert changed == id3.build_tag(wanted, "f.mp4", b"", CHAPTERS[:1])


def test_changed_lyrics_keep_their_language() -> None:
    changed = tags.change(MADE, {"lyrics": "la la la"})
    assert changed == id3.build_tag({**SOURCE, "lyrics-deu": "la la la"}, "f.mp4", PNG, CHAPTERS)


def test_empty_values_remove() -> None:
    found = tags.read(tags.change(MADE, dict.fromkeys(tags.FIELDS, ""), [], b""))
    assert found == tags.Tag({}, [], b"")


def test_mp3_without_a_tag_gets_one() -> None:
    assert tags.size_of(b"\xff\xfb\x90\x00 sound") == 0
    assert tags.read(b"") == tags.Tag({}, [], b"")
    assert tags.read(tags.change(b"", {"title": "New"})).fields == {"title": "New"}


@pytest.mark.parametrize("name", tags.FIELDS)
def test_every_field_can_be_changed(name: str) -> None:
    value = {"date": "2001", "genre": "Jazz"}.get(name, "7")
    changed = tags.read(tags.change(MADE, {name: value}))
    assert changed.fields == {**tags.read(MADE).fields, name: value}


@given(st.dictionaries(st.sampled_from(sorted(tags.FIELDS)), TEXT))
def test_repeated_change_changes_nothing(fields: dict[str, str]) -> None:
    changed = tags.change(MADE, fields)
    assert tags.change(changed, fields) == changed
