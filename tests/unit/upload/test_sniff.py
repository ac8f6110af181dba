"""Which first bytes are refused, and which are left to the converter."""

import os
import struct

import pytest

from functions.sniff import HEAD_SIZE, UnsupportedMediaType, foreign_kind, require_media

ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
MEDIA = {
    "mp4": b"\x00\x00\x00\x20ftypisom",
    "mov, moov first": b"\x00\x00\x10\x00moov",
    "mov, mdat first": b"\x00\x00\x00\x01mdat",
    "old mov": b"\x00\x00\x00\x08wide",
    "mkv": b"\x1a\x45\xdf\xa3\x9f",
    "avi": b"RIFF\x00\x00\x00\x00AVI LIST",
    "wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
    "rf64": b"RF64\xff\xff\xff\xffWAVEds64",
    "aiff": b"FORM\x00\x00\x00\x00AIFFCOMM",
    "flv": b"FLV\x01\x05",
    "ts": (b"G" + bytes(187)) * 3,
    "m2ts": (bytes(4) + b"G" + bytes(187)) * 3,
    "dvb": (b"G" + bytes(203)) * 3,
    "mpg": b"\x00\x00\x01\xba\x44",
    "ogg": b"OggS\x00\x02",
    "wma": ASF,
    "flac": b"fLaC\x00\x00",
    "mp3 with tag": b"ID3\x03\x00",
    "mp3": b"\xff\xfb\x90\x64" + bytes(400),
    "mp3 after zeros": bytes(100) + b"\xff\xfb\x90\x64",
    "mp2": b"\xff\xfd\x80\x04",
    "mp3 of 22 kHz": b"\xff\xf3\x84\x64",
    "aac": b"\xff\xf1\x50\x80",
    "aac of MPEG-2": b"\xff\xf9\x50\x80",
    "amr": b"#!AMR\n",
    "ac3": b"\x0b\x77\x00\x00",
    "tak": b"tBaK\x01",
    "wave64": b"riff\x2e\x91\xcf\x11",
    "wtv": b"\xb7\xd8\x00\x20",
    "dv": b"\x1f\x07\x00\x3f",
    "voc": b"Creative Voice File\x1a\x1a\x00",
    "gxf": b"\x00\x00\x00\x00\x01\xbc",
    "mp3 behind an APEv2 tag": b"APETAGEX\xd0\x07\x00\x00",
    "mp3 from inside a frame": bytes(range(256)) + b"\xff\xfb\x90\x64",
    "ts from inside a packet": bytes(range(88)) + (b"G" + bytes(187)) * 2,
    "mpg from inside a packet": b"\xff" * 200 + b"\x00\x00\x01\xba\x44",
    "recorder's header": b"IMKH\x01\x01\x00\x00\x02\x00\x01\x10",
    "sphere, which begins with a text": b"NIST_1A\n   1024\nchannel_count -i 1\n",
    "zeros": bytes(512),
    "ones": b"\xff" * 512,
    "Latin-1 signs": b"\xe9\xe8" * 256,
}
_PLAYLIST = "a playlist, which only says where to find a video"
OTHER = {
    "text": (b"Once upon a time " * 40, "a text file"),
    "text that is cut inside a character": (("a" + "é" * 400).encode()[:HEAD_SIZE], "a text file"),
    "short text": (b"x", "a text file"),
    "text with a byte order mark": ("\ufeffHello".encode(), "a text file"),
    "utf-16": ("Hello, World".encode("utf-16"), "a text file"),
    "subtitles": (b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "a file of subtitles"),
    "json": (b'{"ftyp": 1}', "a text file"),
    "sdp": (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1", "a text file"),
    "html": (b"\n<!DOCTYPE HTML><title>Video</title>", "a web page"),
    "html in Latin-1": ("<!doctype html><title>Le français</title>".encode("latin-1"), "a web page"),
    "html in Shift JIS": ("\r\n<HTML><title>日本語</title>".encode("shift_jis"), "a web page"),
    "html with a byte order mark": ("\ufeff<html><title>Ü".encode()[:-1] + b"\xff", "a web page"),
    "html in UTF-16": ("<html><title>Ü</title>".encode("utf-16"), "a web page"),
    "playlist in Latin-1": ("#EXTM3U\n#EXTINF:1,Été\na.mp3\n".encode("latin-1"), _PLAYLIST),
    "svg in Latin-1": ("<svg><!-- é -->".encode("latin-1"), "an SVG picture"),
    "playlist": (b"#EXTM3U\nfile:///etc/passwd\n", _PLAYLIST),
    "concat script": (b"ffconcat version 1.0\nfile /etc/passwd\n", "a text file"),
    "gif": (b"GIF89a" + bytes(500), "a GIF picture"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG picture"),
    "webp": (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP picture"),
    "heic": (b"\x00\x00\x00\x18ftypheic\x00", "a HEIF picture"),
    "bmp": (b"BM" + struct.pack("<IIII", 1000, 0, 54, 40), "a BMP picture"),
    "pdf": (b"%PDF-1.7", "a PDF document"),
    "zip": (b"PK\x03\x04", "a ZIP archive or an office document"),
    "doc": (bytes.fromhex("d0cf11e0a1b11ae1"), "an office document"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip archive"),
    "tar": (b"letter.txt".ljust(257, b"\0") + b"ustar\x00", "a tar archive"),
    "elf": (b"\x7fELF\x02\x01", "a program"),
    "exe": (b"MZ".ljust(60, b"\0") + struct.pack("<I", 128) + bytes(64) + b"PE\0\0", "a program"),
    "midi": (b"MThd\x00\x00\x00\x06", "a MIDI file, which has notes instead of sound"),
    "torrent": (b"d8:announce35:udp://tracker", "a torrent, which only says where to find a file"),
}


@pytest.mark.parametrize("kind", MEDIA)
def test_what_may_be_audio_or_video_is_left_to_the_converter(kind: str) -> None:
    assert foreign_kind(MEDIA[kind].ljust(HEAD_SIZE, b"\x00")[:HEAD_SIZE]) is None
    assert foreign_kind(MEDIA[kind] + b"\x00") is None  # a file may be shorter than HEAD_SIZE


@pytest.mark.parametrize("kind", OTHER)
def test_other_files_are_refused_by_name(kind: str) -> None:
    head, name = OTHER[kind]
    assert foreign_kind(head) == name
    with pytest.raises(UnsupportedMediaType, match="choose an audio or video file"):
        require_media(head)


def test_nothing_is_not_refused_for_its_type() -> None:
    assert foreign_kind(b"") is None


def test_random_bytes_are_left_to_the_converter() -> None:
    assert all(foreign_kind(os.urandom(HEAD_SIZE)) is None for _ in range(2000))
