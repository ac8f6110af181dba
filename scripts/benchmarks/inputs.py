"""Makes the videos that are measured with, once, and keeps them in a cache directory."""

import importlib
import os
import shutil
import subprocess
import wave
from pathlib import Path
from typing import Any

SECONDS = 580
RATE = 44100
#: Noisy pictures that take half a megabyte per second; measured.
_PICTURES = ("-f", "lavfi", "-i", "color=gray:s=640x360:r=5,noise=alls=100:allf=t")
_MJPEG = ("-c:v", "mjpeg", "-b:v", "3950k", "-maxrate", "3950k", "-bufsize", "4000k", "-pix_fmt", "yuvj420p")


def ffmpeg() -> str:
    """Returns the ffmpeg that the converter uses, which is also the one that it is compared with."""
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")  # it has no types
    return os.environ.get("FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())


class Inputs:
    """Makes a file if the directory does not contain it yet."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    def video(self, seconds: int, codec: str = "aac") -> Path:
        """Makes a video with music as AAC or MP3 and half a megabyte of noisy pictures per second; 580 s are 300 MB."""
        sound = self.sound(seconds, codec)
        return self._made(f"video-{codec}-{seconds}.mp4", *_PICTURES, "-i", sound, "-shortest", *_MJPEG, "-c:a", "copy")

    def sound(self, seconds: int, codec: str = "aac") -> Path:
        """Makes music as AAC in an M4A file, without noise substitution if it is ``aac-plain``, or as MP3."""
        kinds = {
            "aac": (f"sound-{seconds}.m4a", "aac"),
            "aac-plain": (f"sound-plain-{seconds}.m4a", "aac", "-aac_pns", "0"),
            "mp3": (f"sound-{seconds}.mp3", "libmp3lame"),
        }
        name, *encoder = kinds[codec]
        music = self._music(seconds)
        return self._made(name, "-i", music, "-c:a", *encoder, "-b:a", "160k")

    def repeated(self, source: Path, times: int) -> Path:
        """Concatenates a file with AAC with itself so many times, without encoding it again.

        The sound is concatenated as packets that carry no time, so that the file's tables are those of one recording.
        """
        packets = self._made(f"{source.stem}.aac", "-i", source, "-vn", "-c", "copy")
        sound = self._cache / f"{source.stem}-by-{times}.aac"
        if not sound.exists():
            unfinished = sound.with_suffix(f".{os.getpid()}")
            with unfinished.open("wb") as target:
                for _ in range(times):
                    with packets.open("rb") as part:
                        shutil.copyfileobj(part, target)
            unfinished.rename(sound)
        inputs = ("-stream_loop", str(times - 1), "-i", source, "-i", sound)
        return self._made(f"{sound.stem}{source.suffix}", *inputs, "-map", "0:v?", "-map", "1:a", "-c", "copy")

    def _made(self, name: str, *arguments: str | Path) -> Path:
        path = self._cache / name
        unfinished = self._cache / f"unfinished-{os.getpid()}-{name}"
        if not path.exists():
            subprocess.run([ffmpeg(), "-nostdin", "-v", "error", "-y", *arguments, unfinished], check=True)
            unfinished.rename(path)
        return path

    def _music(self, seconds: int) -> Path:
        """Makes chords that swell and fade, with noise on the beat: LAME takes as long for them as for a song."""
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
                channels = []
                for _ in range(2):
                    levels = random.uniform(0.02, 0.1, 10)
                    speeds = random.uniform(0.5, 6, 10)
                    swell = np.sin(np.pi * speeds[:, None] * time) ** 2
                    sound = (levels[:, None] * swell * np.sin(2 * np.pi * notes[:, None] * time)).sum(0)
                    channels.append(sound + 0.12 * beat * random.standard_normal(RATE))
                target.writeframes((np.clip(np.stack(channels, 1), -1, 1) * 32767).astype("<i2").tobytes())
        unfinished.rename(path)
        return path
