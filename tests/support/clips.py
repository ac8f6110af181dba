"""Makes the clips that tests need, with the ffmpeg of the locked dependencies, and inspects MP3s."""

import importlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

#: Sound that gives an encoder work: notes that start and fade, a little noise, a different melody in each channel.
MUSIC = (
    "aevalsrc='0.4*sin(2*PI*(220+110*floor(mod(t\\,4)))*t)*exp(-3*mod(t\\,0.5))+0.1*random(0)"
    "|0.3*sin(2*PI*(331+55*floor(mod(t\\,7)))*t)*exp(-2*mod(t\\,0.7))+0.1*random(1)':d={seconds}:s={rate}"
)
NOISE = "anoisesrc=c=pink:a=0.5:d={seconds}:r={rate}:seed=7,aformat=channel_layouts=stereo"
SILENCE = "anullsrc=r={rate}:cl=stereo,atrim=duration={seconds}"
#: Jumps between full scale (and beyond) and silence.
STEPS = (
    "aevalsrc='1.4*sin(2*PI*997*t)*gt(mod(t\\,1)\\,0.5)|0.9*sin(2*PI*60*t)*lt(mod(t\\,1.3)\\,0.4)':d={seconds}:s={rate}"
)


@cache
def ffmpeg() -> str:
    """The path of the ffmpeg program."""
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def run(*arguments: object) -> bytes:
    """Runs ffmpeg and returns its standard output."""
    command = [ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def clip(
    path: Path, *arguments: object, sound: str = MUSIC, seconds: float = 12.3, rate: int = 48000, video: bool = False
) -> Path:
    """Makes a clip at ``path``; its extension and the arguments to ffmpeg select the format."""
    picture = ["-f", "lavfi", "-i", f"testsrc=s=96x64:r=25:d={seconds}"] if video else []
    run("-f", "lavfi", "-i", sound.format(seconds=seconds, rate=rate), *picture, *arguments, path)
    return path


def half_a_day(path: Path) -> Path:
    """Makes half a day of silence at ``path``, a FLAC file of 60 kB that takes minutes to convert."""
    silence = "anullsrc=r={rate}:cl=mono,atrim=duration={seconds}"
    return clip(path, "-frame_size", "65535", sound=silence, seconds=43_200, rate=8000)


#: ffmpeg's arguments for files that have the properties of real ones: seconds of sound, seconds of pictures, arguments.
_REALISTIC: dict[str, tuple[float, float, str]] = {
    # A download in WebM: VP8 and Vorbis, pictures that start 3 ms after the sound.
    "download.webm": (30, 30, "-c:v libvpx -c:a libvorbis -ar 44100"),
    # A browser's recording: VP9 and Opus in packets of 60 ms, written live, so that the file states no duration, and
    # with the first packet 15 ms after zero.
    "recording.webm": (
        9,
        9,
        "-c:v libvpx-vp9 -deadline realtime -c:a libopus -frame_duration 60 -live 1 -output_ts_offset 0.015",
    ),
    # A phone's video: AAC in one channel, no edit list, and a first packet that lasts 8471 samples instead of 1024.
    "phone.mp4": (
        2.2,
        2.4,
        "-c:v mpeg4 -ac 1 -c:a aac -b:a 128k -brand mp42 -use_editlist 0 -movflags +faststart "
        "-bsf:a setts=ts='if(eq(N\\,0)\\,PTS\\,PTS+7447)'",
    ),
    # An editor's export for the web: its index before the media, AAC at 30 kbit/s with an edit list that skips 1024.
    "export.mp4": (10.048, 10.04, "-c:v libx264 -c:a aac -b:a 30k -movflags +faststart"),
    # MP3 in MP4 with an edit list that skips 1105 samples, once shorter and once longer than the pictures.
    "short-mp3.mp4": (9.61, 9.64, "-c:v libx264 -c:a libmp3lame -b:a 128k -ar 44100"),
    "long-mp3.mp4": (11.23, 11.2, "-c:v libx264 -c:a libmp3lame -b:a 128k -ar 44100"),
}
REALISTIC = tuple(_REALISTIC)


def realistic(path: Path) -> Path:
    """Makes a file with the properties of real ones; its name is one of ``REALISTIC``."""
    seconds, picture_seconds, arguments = _REALISTIC[path.name]
    sound = ("-f", "lavfi", "-i", MUSIC.format(seconds=seconds, rate=48000))
    picture = ("-f", "lavfi", "-i", f"testsrc=s=128x96:r=25:d={picture_seconds}")
    run(*sound, *picture, *arguments.split(), path)
    return path


def tagged_mp3(path: Path) -> Path:
    """Makes an MP3 at 320 kbit/s with ID3v2.4 tags and a cover of more than a megabyte."""
    cover = path.with_name("cover.jpg")
    run("-f", "lavfi", "-i", "nullsrc=s=1400x1200,geq=random(1)*255:128:128", "-frames:v", 1, "-q:v", 2, cover)
    sound = ("-f", "lavfi", "-i", MUSIC.format(seconds=1, rate=44100))
    tags = {"title": "Roulette (Ärger mix)", "artist": "The Class", "album": "Wheels", "track": "2", "date": "2005"}
    metadata = [word for name, value in tags.items() for word in ("-metadata", f"{name}={value}")]
    maps = ("-map", "0", "-map", "1", "-c:a", "libmp3lame", "-b:a", "320k", "-c:v", "copy")
    run(*sound, "-i", cover, *maps, *metadata, "-id3v2_version", "4", "-disposition:v", "attached_pic", path)
    return path


#: For an MP3 without what differs from file to file, and without a bit reservoir.
PLAIN = ("-map_metadata", "-1", "-reservoir", "0", "-id3v2_version", "0")


def serial(video: Path, mp3: Path, *quality: object) -> bytes:
    """Encodes a video with a single ffmpeg, bit reservoir off, and returns the MP3 without an ID3 tag."""
    run("-i", video, "-vn", "-sn", "-dn", *quality, *PLAIN, mp3)
    return mp3.read_bytes()


def without_id3(mp3: bytes) -> bytes:
    """Returns the MP3 from its first frame on."""
    if not mp3.startswith(b"ID3"):
        return mp3
    size = 0
    for byte in mp3[6:10]:  # ID3v2.3, 3.1: 7 bits in each byte
        assert byte < 128
        size = size << 7 | byte
    return mp3[10 + size :]


def samples(path: Path, rate: int, channels: int) -> int:
    """Decodes a file, asserts that ffmpeg reports no error, and returns the samples per channel."""
    command = [ffmpeg(), "-nostdin", "-v", "error", "-xerror", "-i", str(path), "-vn", "-f", "s16le", "-"]
    done = subprocess.run([*command[:-3], "-ac", str(channels), "-ar", str(rate), *command[-3:]], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return len(done.stdout) // 2 // channels
