"""Two mono tracks become the left and the right channel of one MP3, aligned to the sample."""

from array import array
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from functions.convert.errors import TemporaryStorageFull, UnusableMedia
from functions.convert.seek import excerpt
from functions.options import Options
from tests.support import clips, tracks
from tests.unit.convert import test_identity
from tests.unit.convert.test_damaged_media import convert

BOTH = Options(track=(0, 1))
CHOOSE = "for left and right choose two mono tracks, or convert one track."


def pair(path: Path, *arguments: object, left: str = "anull", right: str = "anull") -> Path:
    """Makes a video of 12 seconds with two mono tracks, after filters."""
    sound = clips.clip(path.with_name("sound.wav"), "-c:a", "pcm_s16le", seconds=12)
    # An input for each: ffmpeg may loop if one of two outputs of a filter ends before the other.
    graph = f"[0:a]pan=mono|c0=c0,{left}[l];[1:a]pan=mono|c0=c1,{right}[r]"
    clips.run(
        *("-i", sound, "-i", sound, "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=12", "-filter_complex", graph),
        *("-map", "2:v", "-map", "[l]", "-map", "[r]", "-c:v", "mpeg2video", *arguments, path),
    )
    return path


def frames(video: Path, directory: Path, options: Options) -> bytes:
    """Returns the MP3 without its ID3 tag."""
    _, mp3 = convert(video, directory, options)
    return clips.without_id3(mp3.read_bytes())


def merged(video: Path, graph: str = "[0:a:0][0:a:1]amerge", codec: str = "pcm_f32le") -> Path:
    """Returns what ffmpeg makes of two tracks: a stereo file without loss."""
    clips.run("-i", video, "-filter_complex", graph, "-c:a", codec, stereo := video.with_name("stereo.wav"))
    return stereo


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("camera.mov", "-c:a pcm_s16le"),
        ("camera.mxf", "-c:a pcm_s16le"),
        ("xdcam.mxf", "-c:a pcm_s24le"),
        ("lossless.mp4", "-c:a alac"),
        ("recorder.mkv", "-c:a flac"),
        ("phone.mp4", "-c:a aac"),
        ("fragmented.mp4", "-c:a aac -movflags frag_keyframe+empty_moov"),
        ("studio.mov", "-c:a pcm_f32le"),
        ("mixed.mov", "-c:a:0 alac -c:a:1 pcm_f32le"),
        ("rates.mkv", "-c:a pcm_s16le -ar:a:1 24000"),
        ("broadcast.ts", "-c:a mp2"),
    ],
)
def test_two_mono_tracks_become_the_mp3_of_a_stereo_file(name: str, arguments: str, tmp_path: Path) -> None:
    video = pair(tmp_path / name, *arguments.split())
    alike = "[0:a:{}]aresample=48000,aformat=sample_fmts=fltp[{}];"
    stereo = merged(video, f"{alike.format(0, 'l')}{alike.format(1, 'r')}[l][r]join")
    result, mp3 = convert(video, tmp_path, BOTH)
    assert clips.without_id3(mp3.read_bytes()) == frames(stereo, tmp_path, Options())
    assert (result.warning, result.copied) == (None, False)


def test_first_track_is_the_left_channel(tmp_path: Path) -> None:
    video = pair(tmp_path / "a.mov", "-c:a", "pcm_s16le")
    swapped = frames(merged(video, "[0:a:1][0:a:0]amerge"), tmp_path, Options())
    assert frames(video, tmp_path, Options(track=(1, 0))) == swapped
    assert frames(video, tmp_path, BOTH) != swapped


LATE = [("a.mov", "-c:a pcm_s16le"), ("b.mp4", "-c:a alac"), ("c.mkv", "-c:a flac"), ("d.nut", "-c:a pcm_s16le")]


@pytest.mark.parametrize(("name", "arguments"), LATE, ids=[row[0] for row in LATE])
def test_late_track_is_aligned_to_the_sample(name: str, arguments: str, tmp_path: Path) -> None:
    video = pair(tmp_path / name, *arguments.split(), right="atrim=start=0.5")
    whole = pair(tmp_path / "whole.mkv", "-c:a", "flac")
    late = "[0:a:1]atrim=start_sample=24000,adelay=24000S[r];[0:a:0][r]amerge"
    result, mp3 = convert(video, tmp_path, BOTH)
    assert clips.without_id3(mp3.read_bytes()) == frames(merged(whole, late), tmp_path, Options())
    assert (result.warning, result.duration) == (None, 12)


@pytest.mark.parametrize(("number", "side"), [(0, "left"), (1, "right")])
def test_shorter_track_ends_in_silence_with_a_warning(number: int, side: str, tmp_path: Path) -> None:
    video = pair(tmp_path / "a.mov", "-c:a", "pcm_s16le", **{side: "atrim=end=8"})
    padded = f"[0:a:{number}]apad=whole_len=576000[p];[p][0:a:{1 - number}]amerge" + ",pan=stereo|c0=c1|c1=c0" * number
    result, mp3 = convert(video, tmp_path, BOTH)
    assert clips.without_id3(mp3.read_bytes()) == frames(merged(video, padded), tmp_path, Options())
    assert result.duration == 12
    assert result.warning == (
        f"Audio track {number} has no sound for about 4 of 12 seconds: the {side} channel is silent there."
    )


def test_gap_of_one_track_is_silence_and_a_gap_of_both_is_left_out(tmp_path: Path) -> None:
    # No sound: left 4 to 7, right 2 to 5 and so both 4 to 5, in frames of 20 ms.
    cut = "asetnsamples=960,aselect='not(between(n,{},{}))'"
    lossless = ("-c:a", "flac", "-frame_size", 960)
    video = pair(tmp_path / "a.mkv", *lossless, left=cut.format(200, 349), right=cut.format(100, 249))
    mute = "[0:a:{}]asetnsamples=960,volume=0:enable='between(n,{},{})'[{}];"
    silent = mute.format(0, 200, 349, "l") + mute.format(1, 100, 249, "r") + "[l][r]amerge"
    whole = pair(tmp_path / "whole.mkv", *lossless)
    result, mp3 = convert(video, tmp_path, Options(track=(0, 1), gaps="silence"))
    assert clips.without_id3(mp3.read_bytes()) == frames(merged(whole, silent), tmp_path, Options())
    assert result.duration == 12
    kept = f"{silent},aselect='not(between(n,200,249))',asetpts=N/SR/TB"
    result, mp3 = convert(video, tmp_path, BOTH)
    assert clips.without_id3(mp3.read_bytes()) == frames(merged(whole, kept), tmp_path, Options())
    assert result.duration == 11
    assert result.warning is not None
    assert "Audio track 0 has no sound for about 2 of 12 seconds: the left channel is silent there." in result.warning


EDITS = [
    Options(track=(0, 1), start=1.5, end=11.2, fade_in=2, fade_out=3, volume=-3),
    Options(track=(0, 1), mono=True, vbr=4),
    Options(track=(0, 1), normalize=True),
]


@pytest.mark.parametrize("options", EDITS, ids=["fades", "mono", "normalize"])
def test_edits_and_ranges_work_as_for_a_stereo_file(options: Options, tmp_path: Path) -> None:
    video = pair(tmp_path / "a.mov", "-c:a", "pcm_s16le")
    _, one = test_identity.convert(video, tmp_path, options, encoders=1)
    _, many = test_identity.convert(video, tmp_path, options, encoders=3)
    assert many == one
    stereo = merged(video, codec="pcm_s16le")  # ffmpeg rounds a mix to mono by the format of its samples
    _, expected = test_identity.convert(stereo, tmp_path, replace(options, track=None), encoders=1)
    assert clips.without_id3(one) == clips.without_id3(expected)


def test_encoders_seek_in_a_pair_of_pcm_and_its_tracks_are_deleted(tmp_path: Path) -> None:
    with pair(tmp_path / "a.mov", "-c:a", "pcm_s16le").open("rb") as source:
        (tmp_path / "work").mkdir()
        track = tracks.take(source, tmp_path / "work", BOTH)
    assert excerpt.is_seekable(track, BOTH)
    clusters = excerpt.index_clusters(track)
    assert clusters is not None
    assert len(clusters.starts) > 1
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["track"]


def test_noise_that_is_no_number_stays_in_its_channel(tmp_path: Path) -> None:
    video = pair(tmp_path / "a.mov", "-c:a", "pcm_f32le", left="aeval='if(gt(t\\,3)\\,1/0\\,val(0))':c=same")
    _, mp3 = convert(video, tmp_path, BOTH)
    right = clips.run("-i", mp3, "-af", "pan=mono|c0=c1,atrim=start=4", "-f", "s16le", "-")
    assert max(map(abs, array("h", right))) > 1000


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((0, 1), f"Audio track 1 of this file is stereo: {CHOOSE}"),
        ((2, 0), f"Audio track 2 of this file has 6 channels: {CHOOSE}"),
        ((0, 7), "There is no audio track 7 in this file: choose one from 0 to 2."),
    ],
)
def test_tracks_that_are_no_pair_are_refused_and_listed(
    numbers: tuple[int, int], sentence: str, tmp_path: Path
) -> None:
    sound = clips.clip(tmp_path / "sound.wav", seconds=1)
    video = tmp_path / "three.mkv"
    maps = ("-map", 0, "-map", 0, "-map", 0, "-ac:a:0", 1, "-ac:a:1", 2, "-ac:a:2", 6, "-c:a", "flac")
    clips.run("-i", sound, *maps, video)
    with pytest.raises(UnusableMedia) as failure:
        convert(video, tmp_path, Options(track=numbers))
    assert str(failure.value) == sentence
    assert [track.channels for track in failure.value.tracks] == [1, 2, 6]


def test_truncated_pair_has_the_warning_of_a_truncated_track(tmp_path: Path) -> None:
    video = pair(tmp_path / "a.mkv", "-c:a", "flac")
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    single, _ = convert(video, tmp_path, Options(track=0))
    both, _ = convert(video, tmp_path, BOTH)
    assert single.warning
    assert both.warning == single.warning
    assert both.duration == pytest.approx(single.duration, abs=0.1)


@pytest.mark.parametrize(
    ("total", "free", "error", "message"),
    [
        (4_000_000, 4_000_000, UnusableMedia, "takes 0.0 GB of temporary storage, and this server has 0.0 GB"),
        (90_000_000, 4_000_000, TemporaryStorageFull, "Temporary storage is full"),
    ],
    ids=["small disk", "full disk"],
)
def test_pair_that_does_not_fit_on_the_disk_fails_before_it_is_written(
    total: int, free: int, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = pair(tmp_path / "a.mov", "-c:a", "pcm_f32le")
    monkeypatch.setattr("functions.convert.pair.run_to_end", pytest.fail)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=total, free=free))
    with pytest.raises(error, match=message):
        convert(video, tmp_path, BOTH)
