"""The tags of the source in the MP3: which field becomes which ID3 frame, in which code page and form."""

import io
import struct
import unicodedata
from pathlib import Path
from typing import Any

import mutagen
import pytest
from mutagen import id3

from functions import code_pages
from functions.convert.demux.child.tag_values import read_values
from functions.mp3.id3 import build_tag
from functions.options import Options
from tests.support import clips
from tests.unit.convert.test_identity import convert

ID3: Any = id3  # mutagen has no types
File: Any = mutagen.File


def read(mp3: bytes) -> Any:
    """Reads a tag as ID3v2.3, without mutagen's translation to ID3v2.4."""
    return ID3.ID3(io.BytesIO(mp3), translate=False)


def frames(tags: dict[str, str], filename: str = "a.mp4") -> dict[str, str]:
    """Returns the texts of the tag for these fields, by frame."""
    return {key: str(frame) for key, frame in read(build_tag(tags, filename, b"")).items()}


@pytest.mark.parametrize(
    ("text", "year", "day"),
    [
        ("20131122", "2013", "2211"),
        ("2013-11-22", "2013", "2211"),
        ("2013/11/22", "2013", "2211"),
        ("2013:11:22 10:00:00", "2013", "2211"),
        ("22.11.2013", "2013", "2211"),
        ("2.1.2013", "2013", "0201"),
        ("11/22/2013", "2013", "2211"),
        ("22/11/2013", "2013", "2211"),
        ("03/04/2013", "2013", None),  # which is the month?
        ("2004-02-29T08:00:00Z", "2004", "2902"),
        ("2013-02-30", "2013", None),
        ("20131399", "2013", None),
        ("2013-11", "2013", None),
        ("2013", "2013", None),
        ("Nov 22, 2013", "2013", None),
        ("0000", None, None),
        ("13", None, None),
    ],
)
def test_date_has_a_year_of_four_digits_and_a_day(text: str, year: str | None, day: str | None) -> None:
    found = frames({"date": text})
    assert (found.get("TYER"), found.get("TDAT")) == (year, day)
    assert "TIME" not in found


def test_track_name_is_not_the_title(tmp_path: Path) -> None:
    for name, arguments in (
        ("2024-01-05 10-22-11.mkv", ["-metadata:s:a", "title=Track1", "-metadata:s:a", "ARTIST=A"]),
        ("film.mp4", ["-metadata:s:a", "title=Surround 5.1", "-metadata:s:a", "handler_name=Track1"]),
    ):
        video = clips.clip(tmp_path / name, "-c:a", "aac", *arguments, seconds=1)
        assert str(read(convert(video, tmp_path, Options(), 1)[1])["TIT2"]) == name.rpartition(".")[0]
    song = clips.clip(tmp_path / "song.oga", "-c:a", "flac", "-metadata:s:a", "title=Song", seconds=1)
    assert str(read(convert(song, tmp_path, Options(), 1)[1])["TIT2"]) == "Song"


#: Texts in the code pages of their languages.
LANGUAGES = {
    "German": ("cp1252", "Größe", "Jörg"),
    "French": ("cp1252", "Été à Paris", "Céline"),
    "Polish": ("cp1250", "Święta noc", "Małgorzata"),
    "Czech": ("cp1250", "Příliš žluťoučký kůň", "Dvořák"),
    "Russian": ("cp1251", "Группа крови", "Кино"),
    "Russian (KOI8-R)": ("koi8-r", "Звезда по имени Солнце", "Кино"),
    "Greek": ("cp1253", "Ζορμπάς", "Μίκης Θεοδωράκης"),
    "Turkish": ("cp1254", "Şımarık", "Barış Manço"),  # noqa: RUF001
    "Hebrew": ("cp1255", "ירושלים של זהב", "נעמי שמר"),
    "Japanese": ("cp932", "上を向いて歩こう", "坂本九"),
    "Chinese": ("gb18030", "月亮代表我的心", "邓丽君"),
    "Chinese (Big5)": ("big5", "月亮代表我的心", "鄧麗君"),
    "Korean": ("cp949", "사랑했지만", "김광석"),
    "Polish (ISO 8859-2)": ("iso8859-2", "Święta noc", "Małgorzata"),
    "Czech (ISO 8859-2)": ("iso8859-2", "Příliš žluťoučký kůň", "Dvořák"),
    "Lithuanian": ("cp1257", "Žalia žolė", "Gražinos Šiaulių"),
    "Latvian": ("cp1257", "Pūt, vējiņi", "Dzīvot šķērsām"),
    "Japanese (EUC-JP)": ("euc_jp", "さくら さくら", "いきものがかり"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_page_is_detected(language: str) -> None:
    code_page, *texts = LANGUAGES[language]
    found = code_pages.decode_all([text.encode(code_page).decode("utf-8", "surrogateescape") for text in texts])
    assert found == texts


def in_cp1258(text: str) -> bytes:
    """Encodes Vietnamese, as Windows does: most tones follow their vowels as characters of their own."""
    data = b""
    for letter in text:
        base, *marks = list(unicodedata.normalize("NFD", letter))
        tone = next((mark for mark in marks if mark in "\u0300\u0301\u0303\u0309\u0323"), "")
        vowel = unicodedata.normalize("NFC", base + "".join(mark for mark in marks if mark != tone))
        data += letter.encode("cp1258") if letter in "àáâèéêíóôùú" else (vowel + tone).encode("cp1258")
    return data


@pytest.mark.parametrize(
    "texts", [("Nối vòng tay lớn", "Khánh Ly"), ("Hà Nội mùa vắng những cơn mưa",), ("Đời đá vàng",), ("Của ai",)]
)
def test_vietnamese_is_recognized_by_its_syllables(texts: tuple[str, ...]) -> None:
    found = code_pages.decode_all([in_cp1258(text).decode("utf-8", "surrogateescape") for text in texts])
    assert tuple(found) == texts


@pytest.mark.parametrize(
    ("code_page", "text"),
    [
        *(("cp1252", text) for text in ("Non può più", "Chão é pão", "Même été", "Nýr dagur", "Ça ira là", "PERÒ")),
        *(("cp1250", text) for text in ("Kůň", "Sklizeň nový", "Pěvě")),
        *(("cp1254", text) for text in ("YAŞ", "AŞKIN")),
        *(("cp1257", text) for text in ("Viņš", "Eņģeļi")),
    ],
)
def test_other_languages_are_not_taken_for_vietnamese(code_page: str, text: str) -> None:
    data = text.encode(code_page)
    assert code_pages.decode(data) != unicodedata.normalize("NFC", data.decode("cp1258"))


@pytest.mark.parametrize(
    ("code_page", "text"),
    [
        *(("cp1252", text) for text in ("Noël", "Água", "Für Elise", "«Été»", "Mötley Crüe")),
        *(("big5", text) for text in ("中文", "天下", "心太軟", "月半小夜曲", "小城故事")),
        *(("cp1250", text) for text in ("Łódź", "Škoda", "Szűcs Győző")),
        *(("gb18030", text) for text in ("中文", "上海滩")),
    ],
)
def test_a_short_text_is_not_taken_for_a_rarer_code_page(code_page: str, text: str) -> None:
    assert code_pages.decode(text.encode(code_page)) == text


@pytest.mark.parametrize("language", ["Russian", "Greek", "Hebrew", "Japanese", "Chinese", "Chinese (Big5)", "Korean"])
def test_code_page_that_claims_to_be_latin_1_is_detected(language: str) -> None:
    code_page, *texts = LANGUAGES[language]
    mislabeled = [text.encode(code_page).decode("latin-1") for text in texts]
    assert code_pages.decode_all(mislabeled, doubts_latin_1=True) == texts
    assert code_pages.decode_all(mislabeled) == mislabeled


@pytest.mark.parametrize("code_page", ["cp932", "cp949", "gb18030"])
@pytest.mark.parametrize("before", ["", "a"])
def test_code_page_of_a_text_longer_than_the_sample_is_detected(code_page: str, before: str) -> None:
    line = {"cp932": "日本語の歌詞がここにあります", "cp949": "이것은 한국어 노래 가사입니다 "}
    text = before + line.get(code_page, "这是一首中文歌曲的歌词，很长") * 200  # noqa: RUF001
    assert code_pages.decode(text.encode(code_page)) == text


def test_latin_1_is_left_alone() -> None:
    texts = ["Größe", "Été", "Motörhead", "Ça va", "Ærø", "ÄÖÜ", "日本語", "“Heroes”", "ASCII", ""]
    assert code_pages.decode_all(texts, doubts_latin_1=True) == texts
    # A tag that says Latin-1 and means Windows' code page.
    assert code_pages.decode_all(["Don\x92t stop"], doubts_latin_1=True) == ["Don’t stop"]  # noqa: RUF001


@pytest.mark.parametrize("container", ["m4a", "mkv", "ogg", "flac", "wma"])
def test_texts_of_unicode_containers_are_taken_at_their_word(container: str, tmp_path: Path) -> None:
    codec = {"ogg": "libvorbis", "wma": "wmav2", "flac": "flac"}.get(container, "aac")
    song = clips.clip(tmp_path / f"a.{container}", "-c:a", codec, "-metadata", "title=ÄÖÜß", seconds=1)
    assert str(read(convert(song, tmp_path, Options(), 1)[1])["TIT2"]) == "ÄÖÜß"


def test_surrogates_that_stand_for_no_bytes_do_no_harm() -> None:
    title, artist = code_pages.decode_all(["a\ud800b", "\udcff" * 3])
    assert frames({"title": title, "artist": artist})["TIT2"] == "a?b"


def test_id3v1_and_riff_in_a_code_page_are_decoded(tmp_path: Path) -> None:
    song = clips.clip(tmp_path / "a.mp3", "-id3v2_version", 0, seconds=1)
    title, artist, nothing = "Größe".encode("latin-1"), "Jörg".encode("latin-1"), bytes(30)
    with song.open("ab") as file:
        file.write(b"TAG" + title.ljust(30, b"\0") + artist.ljust(30, b"\0") + nothing + b"2004" + nothing + b"\xff")
    tag = read(convert(song, tmp_path, Options(), 1)[1])
    assert (str(tag["TIT2"]), str(tag["TPE1"]), str(tag["TYER"])) == ("Größe", "Jörg", "2004")
    film = clips.clip(tmp_path / "a.avi", "-metadata", "title=GRUPPA KROVI", seconds=1, video=True)
    film.write_bytes(film.read_bytes().replace(b"GRUPPA KROVI", "Группа крови".encode("cp1251")))
    assert str(read(convert(film, tmp_path, Options(), 1)[1])["TIT2"]) == "Группа крови"


def full_flac(path: Path) -> Path:
    song = File(clips.clip(path, "-c:a", "flac", seconds=1))
    song.update(
        {
            "title": "Song", "artist": ["A", "B"], "albumartist": "AA", "lyrics": "line one\nline two", "bpm": "120",
            "compilation": "1", "tracknumber": "3", "tracktotal": "12", "discnumber": "1", "disctotal": "2",
            "date": "2013-11-22", "isrc": "DE1", "description": "about", "replaygain_track_gain": "-7.10 dB",
            "musicbrainz_albumid": "abc", "musicbrainz_trackid": "def", "artistsort": "S",
        }
    )  # fmt: skip
    song.save()
    return path


def test_vorbis_comments_become_frames(tmp_path: Path) -> None:
    tag = read(convert(full_flac(tmp_path / "a.flac"), tmp_path, Options(), 1)[1])
    assert tag.version == (2, 3, 0)
    found = {key: str(frame) for key, frame in tag.items() if key != "UFID:http://musicbrainz.org"}
    assert found == {
        "TIT2": "Song",
        "TPE1": "A/B",
        "TPE2": "AA",
        "TSOP": "S",
        "TBPM": "120",
        "TCMP": "1",
        "TRCK": "3/12",
        "TPOS": "1/2",
        "TYER": "2013",
        "TDAT": "2211",
        "TSRC": "DE1",
        "COMM::eng": "about",
        "USLT::eng": "line one\nline two",
        "TXXX:REPLAYGAIN_TRACK_GAIN": "-7.10 dB",
        "TXXX:MusicBrainz Album Id": "abc",
    }
    assert tag["UFID:http://musicbrainz.org"].data == b"def"
    assert tag["TPE1"].encoding == ID3.Encoding.UTF16


@pytest.mark.parametrize("options", [Options(volume=-3.0), Options(normalize=True)])
def test_replaygain_of_another_loudness_is_left_out(options: Options, tmp_path: Path) -> None:
    tag = read(convert(full_flac(tmp_path / "a.flac"), tmp_path, options, 1)[1])
    assert not [key for key in tag if "REPLAYGAIN" in key]
    assert "TXXX:MusicBrainz Album Id" in tag


def _id3(path: Path) -> None:
    tag = ID3.ID3()
    for frame in (
        ID3.TIT2(3, ["T"]),
        ID3.TPE1(1, ["Ä", "B"]),
        ID3.TBPM(3, ["120"]),
        ID3.TCMP(3, ["1"]),
        ID3.TRCK(3, ["3/12"]),
        ID3.TPOS(3, ["1/2"]),
        ID3.TCON(3, ["17"]),
        ID3.TLAN(3, ["deu"]),
        ID3.USLT(3, "deu", "", "Zeile"),
        ID3.COMM(3, "deu", "", "hi"),
        ID3.COMM(3, "eng", "iTunNORM", "00 00"),
        ID3.TXXX(3, "MusicBrainz Album Id", ["abc"]),
        ID3.TDRC(3, ["2013-11-22"]),
    ):
        tag.add(frame)
    song = File(path)
    if song.tags is None:
        song.add_tags()
    for frame in tag.values():
        song.tags.add(frame)
    song.save()


def _mp4(path: Path) -> None:
    song = File(path)
    song["\xa9nam"] = "T"
    song["\xa9ART"] = ["Ä", "B"]
    song["tmpo"] = [120]
    song["cpil"] = True
    song["trkn"] = [(3, 12)]
    song["disk"] = [(1, 2)]
    song["\xa9gen"] = "Rock"
    song["\xa9day"] = "2013-11-22T08:00:00Z"
    song["\xa9lyr"] = "Zeile"
    song["\xa9cmt"] = "hi"
    song["----:com.apple.iTunes:MusicBrainz Album Id"] = b"abc"
    song.save()


def _comments(path: Path) -> None:
    song = File(path)
    song.update({"title": "T", "bpm": "120", "compilation": "1", "tracknumber": "3/12", "discnumber": "1/2"})
    song.update(
        {
            "artist": ["Ä", "B"],
            "genre": "Rock",
            "unsyncedlyrics": "Zeile",
            "comment": "hi",
            "musicbrainz_albumid": "abc",
        }
    )
    song.update({"date": "20131122", "r128_track_gain": "-256"})
    song.save()


def _asf(path: Path) -> None:
    song = File(path)
    song["Title"] = "T"
    song["Author"] = ["Ä", "B"]
    song["WM/AlbumArtist"] = ["C", "D", "C"]
    for name, value in {
        "BeatsPerMinute": "120",
        "IsCompilation": "1",
        "TrackNumber": "3/12",
        "PartOfSet": "1/2",
        "Genre": "Rock",
        "Lyrics": "Zeile",
        "Year": "2013-11-22",
    }.items():
        song[f"WM/{name}"] = value
    song["Description"] = "hi"
    song["MusicBrainz/Album Id"] = "abc"
    song.save()


def _ape(path: Path) -> None:
    song = File(path)
    if song.tags is None:
        song.add_tags()
    song["Title"] = "T"
    song["Artist"] = ["Ä", "B"]
    song["Album Artist"] = ["C", "D"]
    song["BPM"] = "120"
    song["Compilation"] = "1"
    song["Track"] = "3/12"
    song["Disc"] = "1/2"
    song["Genre"] = "Rock"
    song["Lyrics"] = "Zeile"
    song["Comment"] = "hi"
    song["MUSICBRAINZ_ALBUMID"] = "abc"
    song["Year"] = "2013-11-22"
    song.save()


#: File name, codec, and what writes its tags.
SOURCES = {
    "a.mp3": ("libmp3lame", _id3),
    "a.wav": ("pcm_s16le", _id3),
    "a.aiff": ("pcm_s16be", _id3),
    "a.m4a": ("aac", _mp4),
    "a.opus": ("libopus", _comments),
    "a.oga": ("flac", _comments),
    "a.wma": ("wmav2", _asf),
    "a.wv": ("wavpack", _ape),
}
COMPLETE = {
    "TIT2": "T",
    "TBPM": "120",
    "TCMP": "1",
    "TRCK": "3/12",
    "TPOS": "1/2",
    "TCON": "Rock",
    "TYER": "2013",
    "TDAT": "2211",
    "COMM::eng": "hi",
    "TXXX:MusicBrainz Album Id": "abc",
}


@pytest.mark.parametrize("name", SOURCES)
def test_tags_of_every_kind_become_frames(name: str, tmp_path: Path) -> None:
    codec, write = SOURCES[name]
    song = clips.clip(tmp_path / name, "-c:a", codec, "-map_metadata", -1, seconds=1)
    write(song)
    tag = read(convert(song, tmp_path, Options(), 1)[1])
    found = {key: str(frame) for key, frame in tag.items()}
    assert {key: found.get(key) for key in COMPLETE} == COMPLETE
    assert found.get("TPE1") == "Ä/B"
    assert found.get("TPE2") == ("C/D" if write in (_asf, _ape) else None)
    (lyrics,) = tag.getall("USLT")
    assert lyrics.text == "Zeile"
    assert lyrics.lang == ("deu" if write is _id3 else "eng")
    assert found.get("TXXX:REPLAYGAIN_TRACK_GAIN") == ("4.00 dB" if write is _comments else None)


def id3_frame(kind: bytes, content: bytes, flags: int = 0) -> bytes:
    return kind + len(content).to_bytes(4, "big") + bytes([0, flags]) + content


def id3_tag(content: bytes, flags: int = 0) -> bytes:
    return b"ID3\4\0" + bytes([flags]) + len(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        (id3_tag(id3_frame(b"TPE1", b"\3A\0B\0")), {"artist": "A;B"}),
        (id3_tag(id3_frame(b"TPE1", b"\3A\0")), {}),  # libavformat reads a single value
        (id3_tag(id3_frame(b"TCON", b"\1" + "A".encode("utf-16") + b"\0\0" + "Ö".encode("utf-16"))), {"genre": "A;Ö"}),
        (id3_tag(id3_frame(b"TCOM", b"\2" + "A\0Ö".encode("utf-16-be"))), {"composer": "A;Ö"}),
        (id3_tag(id3_frame(b"TPE1", b"g\0\0\0\6\0\xff\0\0B", 0x43)), {"artist": "ÿ;B"}),
        (id3_tag(b"\0\0\0\6\1\0" + id3_frame(b"TPE1", b"\0A\0B"), 0x40), {"artist": "A;B"}),
        (id3_tag(id3_frame(b"TPE1", b"\3A\0B", 0x08)), {}),  # compressed
        (id3_tag(id3_frame(b"TPE1", b"\7A\0B") + id3_frame(b"TPE2", b"")), {}),
        (id3_tag(id3_frame(b"TPE1", b"\3A\0B"))[:-1], {}),
        (b"ID3\4", {}),
        (b"RIFF\0\0\0\0WAVEfmt \1\0\0\0..id3 \0\0\0\0" + id3_tag(id3_frame(b"TPE1", b"\3A\0B")), {"artist": "A;B"}),
        (b"\0\0\0\x08ftyp\0\0\0\x08moov", {}),
        (b"\0\0\0\x08ftyp\0\0\xff\x08moov", {}),
    ],
)  # fmt: skip
def test_several_values_are_read(tag: bytes, values: dict[str, str]) -> None:
    assert read_values(Source(tag), len(tag)) == values


class Source(io.BytesIO, io.RawIOBase):
    """A file in memory."""


def ape_tag(items: bytes, count: int, *, size: int | None = None, flags: int = 0) -> bytes:
    size = len(items) + 32 if size is None else size
    return items + b"APETAGEX" + struct.pack("<IIII8x", 2000, size, count, flags)


def ape_item(name: bytes, value: bytes, flags: int = 0) -> bytes:
    return struct.pack("<II", len(value), flags) + name + b"\0" + value


#: GUIDs of the Advanced Systems Format specification, 10.1 to 10.3; the header claims to be long.
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QIH", 1 << 30, 1, 0x0201)
ASF_EXTENDED = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
ASF_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        (b"sound" + ape_tag(ape_item(b"ARTIST", b"A\0B"), 1), {"artist": "A;B"}),
        (ape_tag(ape_item(b"Genre", b"A\0B"), 1) + b"TAG".ljust(128), {"genre": "A;B"}),
        (ape_tag(ape_item(b"Artist", b"A"), 1), {}),
        (ape_tag(ape_item(b"Artist", b"A\0B", flags=2), 1), {}),  # binary
        (ape_tag(ape_item(b"Artist", b"A\0B"), 0), {}),
        (ape_tag(ape_item(b"Artist", b"A\0B")[:-1], 1), {}),
        (ape_tag(b"\0" * 8 + b"Artist", 9), {}),
        (ape_tag(ape_item(b"Artist", b"A\0B"), 1, size=999), {}),
        (ape_tag(ape_item(b"Artist", b"A\0B"), 1, flags=1 << 29), {}),
        (b"APETAGEX", {}),
        (ASF_HEADER, {}),
        (ASF_HEADER + bytes(24), {}),
        (ASF_HEADER + ASF_EXTENDED + struct.pack("<QH", 99, 9), {}),
        (ASF_HEADER + ASF_EXTENSION + struct.pack("<Q", 1 << 60) + bytes(99), {}),
    ],
)  # fmt: skip
def test_several_values_of_apev2_and_asf_are_read_up_to_damage(tag: bytes, values: dict[str, str]) -> None:
    assert read_values(Source(tag), len(tag)) == values


def test_genres_by_number_have_names() -> None:
    assert frames({"genre": "17;Jazz;8;200;999"})["TCON"] == "Rock/Jazz/200/999"


def test_odd_values_are_left_out_or_kept_as_they_are() -> None:
    assert "TLAN" not in frames({"language": "und"})
    assert frames({"language": "deu"})["TLAN"] == "deu"
    assert "TCMP" not in frames({"compilation": "0"})
    assert frames({"track": "A3", "TRACKTOTAL": "?"})["TRCK"] == "A3"
    assert "TRCK" not in frames({"TOTALTRACKS": "12"})
    assert frames({"artist": " ; A;;B "})["TPE1"] == "A/B"
    assert frames({"title": "a\nb\x01c"})["TIT2"] == "a b c"
    assert frames({"title": " "}, "C:\\Users\\me\\Video 1.mp4")["TIT2"] == "Video 1"
    assert frames({"lyrics-intro-fra": "a\r\nb\x01"})["USLT::fra"] == "a\nb"
    assert frames({"lyrics-intro-fra": "a", "lyrics-deu": "b"})["USLT::deu"] == "b"
