"""Encoders run the bundled way if it makes the same bytes, and fall back to stages if it fails."""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import av
import pytest

from functions.convert import pipeline
from functions.convert.errors import EncoderKilled, TemporaryStorageFull
from functions.convert.ffmpeg import encoder
from functions.convert.ffmpeg.encoder import EncoderInput, EncoderRun
from functions.convert.plan import FrameRange, plan_for
from functions.options import Options
from tests.support import clips, tracks
from tests.support.processes import shell_program

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("unconfined")]


#: What an ffmpeg built without amovie does.
NO_AMOVIE = "echo '[error] Unknown input format' >&2; exit 8"


class LoggingFfmpeg:
    """An ffmpeg that logs which way each encoder runs, and runs ``failure`` instead of the bundled way."""

    def __init__(self, directory: Path, failure: str, version: str) -> None:
        self.path = directory / "ffmpeg"
        self._log = directory / "log"
        bundled = f'case "$*" in *lavfi*) {failure};; esac\n' if failure else ""
        old = f'case "$*" in -version) echo "{version}"; exit;; esac\n' if version else ""
        shell_program(self.path, f'echo "$*" >> {self._log}\n{bundled}{old}exec {clips.ffmpeg()} "$@"')

    def ways(self) -> list[str]:
        """How each encoder was started, in order."""
        lines = [line for line in self._log.read_text().splitlines() if "libmp3lame" in line]
        return ["bundled" if "amovie" in line else "staged" for line in lines]


def convert(
    video: Path,
    directory: Path,
    options: Options | None = None,
    *,
    encoders: int = 2,
    failure: str = "",
    version: str = "",
) -> tuple[pipeline.Result, bytes, list[str], list[float]]:
    program = LoggingFfmpeg(directory, failure, version)
    out = io.BytesIO()
    progress: list[float] = []
    with video.open("rb") as source:
        result = pipeline.to_mp3(
            source,
            out,
            pipeline.Settings(
                options=options or Options(bitrate=160),
                filename=video.name,
                encoders=encoders,
                ffmpeg=str(program.path),
            ),
            directory=directory,
            on_progress=progress.append,
        )
    return result, clips.without_id3(out.getvalue()), program.ways(), progress


def one_ffmpeg(video: Path, directory: Path) -> bytes:
    return clips.serial(video, directory / "serial.mp3", "-b:a", "160k")


KINDS = [
    ("a.mp4", "-c:a aac", "bundled"),
    ("v.webm", "-c:a libvorbis", "bundled"),
    ("f.mkv", "-c:a flac", "bundled"),
    ("s.m4a", "-c:a aac -ac 1", "bundled"),
    ("u.wav", "-c:a pcm_u8 -ar 96000", "bundled"),
    # The codec may have mix levels, or there are more than two channels.
    ("six.mkv", "-c:a ac3 -ac 6", "staged"),
    ("two.mkv", "-c:a ac3", "staged"),
    ("six.m4a", "-c:a aac -ac 6", "staged"),
]


@pytest.mark.parametrize(("name", "arguments", "way"), KINDS, ids=[row[0] for row in KINDS])
def test_every_kind_of_sound_becomes_the_bytes_of_one_ffmpeg(
    name: str, arguments: str, way: str, tmp_path: Path
) -> None:
    video = clips.clip(tmp_path / name, *arguments.split())
    result, mp3, ways, _ = convert(video, tmp_path)
    assert ways == [way] * 2
    assert mp3 == one_ffmpeg(video, tmp_path)
    assert result.warning is None


def damaged(path: Path) -> Path:
    """A video with damage after its middle."""
    video = clips.clip(path, "-c:a", "flac", seconds=20)
    data = bytearray(video.read_bytes())
    at = len(data) * 7 // 10
    data[at : at + 3000] = bytes(3000)
    video.write_bytes(data)
    return video


def test_damage_makes_an_encoder_fall_back_to_stages(tmp_path: Path) -> None:
    video = damaged(tmp_path / "a.mka")
    result, mp3, ways, progress = convert(video, tmp_path, encoders=1)
    assert ways == ["bundled", "staged"]
    assert mp3 == one_ffmpeg(video, tmp_path)
    assert result.warning is not None
    assert "damaged" in result.warning
    assert progress == sorted(progress)


def test_only_the_encoder_that_meets_the_damage_falls_back(tmp_path: Path) -> None:
    video = damaged(tmp_path / "a.mka")
    _, mp3, ways, _ = convert(video, tmp_path, encoders=2)
    assert sorted(ways) == ["bundled", "bundled", "staged"]
    assert mp3 == one_ffmpeg(video, tmp_path)


def test_chained_opus_takes_one_encoder_for_each_range(tmp_path: Path) -> None:
    links = [clips.clip(tmp_path / f"{n}.opus", "-c:a", "libopus", seconds=2).read_bytes() for n in range(5)]
    (tmp_path / "chain.opus").write_bytes(b"".join(links))
    result, _, ways, _ = convert(tmp_path / "chain.opus", tmp_path)
    assert (result.duration, result.warning, ways) == (10, None, ["bundled"] * 2)


def test_range_takes_at_most_three_runs(tmp_path: Path) -> None:
    for outcomes in itertools.product([(0, False), (1, False), (1, True)], repeat=5):
        run = EncoderRun(FrameRange(0, None), tmp_path / "frames")
        runs = 0
        for errors, unencodable in outcomes:
            runs += 1
            run.errors = errors
            run.unencodable = unencodable
            if not run.needs_another:
                break
            run = run.another()
        assert runs <= 3


def test_ffmpeg_without_amovie_runs_in_stages(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:a", "aac")
    result, mp3, ways, _ = convert(video, tmp_path, failure=NO_AMOVIE)
    assert sorted(ways) == ["bundled"] * 2 + ["staged"] * 2
    assert mp3 == one_ffmpeg(video, tmp_path)
    assert result.warning is None


def test_sound_after_a_packet_of_two_frames_is_kept(tmp_path: Path) -> None:
    sound = clips.clip(tmp_path / "sound.mka", "-c:a", "flac")
    video = tmp_path / "a.mka"
    with av.open(str(sound)) as container, av.open(str(video), "w") as target:
        stream = target.add_stream_from_template(container.streams.audio[0])
        for number, packet in enumerate(container.demux()):
            twice = av.Packet(bytes(packet) * 2) if number == 3 else packet
            twice.pts = packet.pts
            twice.dts = packet.dts
            twice.time_base = packet.time_base
            twice.stream = stream
            target.mux(twice)
    _, mp3, ways, _ = convert(video, tmp_path)
    assert ways == ["bundled"] * 2
    assert mp3 == one_ffmpeg(video, tmp_path)


def test_ffmpeg_whose_amovie_loses_frames_runs_in_stages(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:a", "aac")
    _, mp3, ways, _ = convert(video, tmp_path, version="libavfilter     10.  1.100 / 10.  1.100")
    assert ways == ["staged"] * 2
    assert mp3 == one_ffmpeg(video, tmp_path)


def test_change_of_rate_makes_the_encoder_fall_back_to_stages(tmp_path: Path) -> None:
    first, second = (clips.clip(tmp_path / f"{rate}.aac", rate=rate, seconds=9) for rate in (44100, 32000))
    video = tmp_path / "both.aac"
    video.write_bytes(first.read_bytes() + second.read_bytes())
    result, mp3, ways, _ = convert(video, tmp_path)
    assert ways[-1] == "staged"
    assert mp3 == one_ffmpeg(video, tmp_path)
    assert result.duration == pytest.approx(18, abs=0.2)


def test_edits_count_the_same_samples_both_ways(tmp_path: Path) -> None:
    # This container's clock counts milliseconds, which are not a whole number of samples.
    video = clips.clip(tmp_path / "a.mkv", "-c:a", "aac", seconds=20, rate=44100)
    options = Options(bitrate=160, start=1.0007, fade_in=2, fade_out=3.3, volume=-4.0)
    _, bundled, ways, _ = convert(video, tmp_path, options)
    assert ways == ["bundled"] * 2
    (other := tmp_path / "staged").mkdir()
    _, staged, ways, _ = convert(video, other, options, failure=NO_AMOVIE)
    assert ways.count("staged") == 2
    assert bundled == staged


def test_late_range_reports_its_position_on_the_clock_of_the_track(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:a", "aac", seconds=20)
    options = Options(bitrate=160)
    with video.open("rb") as source:
        track = tracks.take(source, tmp_path, options)
    plan = plan_for(track, options, 1)
    for way in (plan, replace(plan, bundled=False)):
        (done,) = encoder.encode(
            EncoderInput(clips.ffmpeg(), way, track.path, tmp_path), [FrameRange(490, None)], 1, lambda _: None
        )
        assert done.staged != way.bundled
        assert done.seconds == pytest.approx(20, abs=0.1)


def test_damage_that_the_decoder_does_not_report_causes_a_warning(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mka", "-c:a", "alac", rate=44100)
    with av.open(str(video)) as container:
        packet = bytes([*itertools.islice(container.demux(), 4)][-1])
    video.write_bytes(video.read_bytes().replace(packet, bytes(len(packet))))
    result, mp3, _, _ = convert(video, tmp_path)
    assert mp3 == one_ffmpeg(video, tmp_path)
    assert result.warning == "Parts of the sound are damaged or missing and were left out."


@pytest.mark.parametrize("name", ["SEGV", "ABRT"])
def test_encoder_that_crashes_falls_back_to_stages(name: str, tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:a", "aac")
    _, mp3, ways, _ = convert(video, tmp_path, failure=f"kill -{name} $$")
    assert sorted(ways) == ["bundled"] * 2 + ["staged"] * 2
    assert mp3 == one_ffmpeg(video, tmp_path)


def test_hopeless_run_is_stopped_at_once(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:a", "aac")
    _, mp3, ways, _ = convert(video, tmp_path, failure="echo '[error] damaged' >&2; exec sleep 3600")
    assert sorted(ways) == ["bundled"] * 2 + ["staged"] * 2
    assert mp3 == one_ffmpeg(video, tmp_path)


def test_killed_encoder_is_not_restarted(tmp_path: Path) -> None:
    video = clips.clip(tmp_path / "a.mp4", "-c:a", "aac")
    with pytest.raises(EncoderKilled):
        convert(video, tmp_path, failure="kill -KILL $$")


def test_full_disk_after_damage_is_retried_later(tmp_path: Path) -> None:
    video = damaged(tmp_path / "a.mka")
    failure = (
        "echo '[flac] [error] decode_frame() failed\n[fd] [error] Error writing: No space left on device' >&2; exit 228"
    )
    with pytest.raises(TemporaryStorageFull):
        convert(video, tmp_path, failure=failure)
