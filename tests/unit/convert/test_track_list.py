"""The list of a file's audio tracks."""

from pathlib import Path

import pytest

from functions.convert.demux.track import extract_track
from functions.convert.errors import UnusableMedia
from functions.convert.track_list import ListedTrack, decoded
from tests.support import clips

NAMED = "-disposition:a:0 0 -disposition:a:1 default -metadata:s:a:0 language=ger -metadata:s:a:1 language=eng"
DIRECTOR = "Director\u2019s comments"


def tracks_of(video: Path, directory: Path, number: int | None = None) -> list[ListedTrack]:
    with video.open("rb") as source:
        track = extract_track(source, directory / "track", number=number, copy=False, on_progress=lambda _: None)
    assert track is not None
    return list(track.tracks)


def two_tracks(path: Path, *arguments: object) -> Path:
    """Makes a file with a mono and a stereo track; the second is the default."""
    sound = clips.clip(path.with_name("sound.wav"), seconds=1)
    clips.run(
        *("-i", sound, "-i", sound, "-map", 0, "-map", 1, "-ac:a:0", 1, "-ac:a:1", 2),
        *(*NAMED.split(), "-metadata:s:a:1", f"title={DIRECTOR}", *arguments, path),
    )
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("two.mkv", "aac"), ("two.mp4", "aac"), ("fragmented.mp4", "alac"), ("two.mov", "pcm_s24le"), ("two.mka", "mp3")],
)
def test_tracks_are_listed_in_every_way_of_reading(name: str, codec: str, tmp_path: Path) -> None:
    fragmented = ["-movflags", "frag_keyframe+empty_moov"] if name.startswith("fragmented") else []
    video = two_tracks(tmp_path / name, "-c:a", "libmp3lame" if codec == "mp3" else codec, *fragmented)
    expected = [ListedTrack(codec, 1, "ger", "", False), ListedTrack(codec, 2, "eng", DIRECTOR, True)]
    assert tracks_of(video, tmp_path) == expected
    assert tracks_of(video, tmp_path, number=0) == expected


def test_title_of_an_ogg_file_is_not_its_tracks(tmp_path: Path) -> None:
    song = clips.clip(tmp_path / "song.ogg", "-c:a", "libvorbis", "-metadata", "title=Song", seconds=1)
    assert tracks_of(song, tmp_path) == [ListedTrack("vorbis", 2, "", "", True)]


def test_error_about_a_track_lists_all(tmp_path: Path) -> None:
    video = two_tracks(tmp_path / "two.mkv", "-c:a", "flac")
    with pytest.raises(UnusableMedia, match="choose one from 0 to 1") as failure:
        tracks_of(video, tmp_path, number=2)
    assert [track.language for track in failure.value.tracks] == ["ger", "eng"]


def test_titles_are_text_that_can_be_stored() -> None:
    titles = ["K\udcf6nig", "\ud800", "plain"]
    assert [track.title for track in decoded([ListedTrack("aac", 2, "", title, False) for title in titles])] == [
        "K\u00f6nig",
        "?",
        "plain",
    ]
