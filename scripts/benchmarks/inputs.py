"""The videos that are measured with: made once by ffmpeg, kept in a cache directory."""

import importlib
import os
import subprocess
import wave
from pathlib import Path
from typing import Any

SECONDS = 580
RATE = 44100
#: What one more second of the noise video below takes, in bytes; measured.
_PICTURES = ("-f", "lavfi", "-i", "color=gray:s=640x360:r=5,noise=alls=100:allf=t")
_MJPEG = ("-c:v", "mjpeg", "-b:v", "3950k", "-maxrate", "3950k", "-bufsize", "4000k", "-pix_fmt", "yuvj420p")


def ffmpeg() -> str:
    """The ffmpeg that the engine uses, and so the one that it is compared with."""
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return os.environ.get("FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())


class Inputs:
    """Makes what is asked for where the directory has not got it yet."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    def video(self, seconds: int, codec: str = "aac") -> Path:
        """So many seconds of music as AAC or MP3, in half a megabyte of noisy pictures a second; 580 s are 300 MB."""
        sound = self.sound(seconds, codec)
        return self._made(f"video-{codec}-{seconds}.mp4", *_PICTURES, "-i", sound, "-shortest", *_MJPEG, "-c:a", "copy")

    def sound(self, seconds: int, codec: str = "aac") -> Path:
        """So many seconds of music as AAC in m4a, as MP3, or as Vorbis in ogg."""
        kinds = {"aac": ("aac", "m4a"), "mp3": ("libmp3lame", "mp3"), "vorbis": ("libvorbis", "ogg")}
        encoder, suffix = kinds[codec]
        music = self._music(seconds)
        return self._made(f"sound-{seconds}.{suffix}", "-i", music, "-c:a", encoder, "-b:a", "160k")

    def repeated(self, source: Path, times: int) -> Path:
        """The same file so many times in a row, without encoding anything anew."""
        name = f"{source.stem}-times-{times}{source.suffix}"
        return self._made(name, "-stream_loop", str(times - 1), "-i", source, "-map", "0", "-c", "copy")

    def silence(self, seconds: int) -> Path:
        """So many seconds of AAC stereo of nothing, which is quick to make and to encode and has as many frames."""
        name, minute = f"silence-{seconds}.m4a", 600
        source = ("-f", "lavfi", "-i", f"anullsrc=r={RATE}:cl=stereo", "-t", str(minute), "-c:a", "aac", "-b:a", "64k")
        short = self._made("silence-600.m4a", *source)
        if seconds == minute:
            return short
        return self._made(name, "-stream_loop", str(seconds // minute - 1), "-i", short, "-c", "copy")

    def _made(self, name: str, *arguments: str | Path) -> Path:
        path, unfinished = self._cache / name, self._cache / f"unfinished-{os.getpid()}-{name}"
        if not path.exists():
            subprocess.run([ffmpeg(), "-nostdin", "-v", "error", "-y", *arguments, unfinished], check=True)
            unfinished.rename(path)
        return path

    def _music(self, seconds: int) -> Path:
        """Chords whose notes swell and fade, with noise on the beat: what LAME takes as long for as for a song."""
        import numpy as np

        path = self._cache / f"music-{seconds}.wav"
        if path.exists():
            return path
        random = np.random.default_rng(1)
        unfinished = path.with_suffix(f".{os.getpid()}")
        with unfinished.open("wb") as file, wave.open(file, "wb") as target:
            target.setnchannels(2)
            target.setsampwidth(2)
            target.setframerate(RATE)
            time = np.arange(RATE) / RATE
            for _ in range(seconds):
                notes = 55 * 2 ** (random.integers(0, 60, 10) / 12)
                beat = np.exp(-4 * (time * 4 % 1))
                both = []
                for _ in range(2):
                    levels, speeds = random.uniform(0.02, 0.1, 10), random.uniform(0.5, 6, 10)
                    swell = np.sin(np.pi * speeds[:, None] * time) ** 2
                    sound = (levels[:, None] * swell * np.sin(2 * np.pi * notes[:, None] * time)).sum(0)
                    both.append(sound + 0.12 * beat * random.standard_normal(RATE))
                target.writeframes((np.clip(np.stack(both, 1), -1, 1) * 32767).astype("<i2").tobytes())
        unfinished.rename(path)
        return path
