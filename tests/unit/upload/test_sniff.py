"""Which first bytes are recognized as audio or video."""

import os

import pytest

from functions.upload.sniff import HEAD_SIZE, is_media

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
}
OTHER = {
    "nothing": b"",
    "one byte": b"\xff",
    "text": b"Once upon a time " * 40,
    "gif, which starts with G like a transport stream": b"GIF89a" + bytes(500),
    "png": b"\x89PNG\r\n\x1a\n",
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "pdf": b"%PDF-1.7",
    "zip": b"PK\x03\x04",
    "elf": b"\x7fELF\x02\x01",
    "html": b"<!DOCTYPE html>",
    "playlist": b"#EXTM3U\nfile:///etc/passwd\n",
    "concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    "zeros": bytes(512),
    "utf-16": b"\xff\xfeO\x00n\x00c\x00e\x00",
    "ones": b"\xff" * 512,
    "json": b'{"ftyp": 1}',
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1",
}


@pytest.mark.parametrize("kind", MEDIA)
def test_audio_and_video_are_recognized(kind: str) -> None:
    assert is_media(MEDIA[kind].ljust(HEAD_SIZE, b"\x55")[:HEAD_SIZE])
    assert is_media(MEDIA[kind])  # a file may be shorter than HEAD_SIZE


@pytest.mark.parametrize("kind", OTHER)
def test_other_files_are_not_recognized(kind: str) -> None:
    assert not is_media(OTHER[kind])


def test_random_bytes_are_rarely_mistaken_for_media() -> None:
    assert sum(is_media(os.urandom(HEAD_SIZE)) for _ in range(2000)) < 20
