"""The waveform of the page's editor, in Node.js."""

import json
import wave
from pathlib import Path
from typing import Final

from tests.support import page_code

_BARS: Final = 480


def test_bars_of_a_long_file_are_where_its_sound_is(tmp_path: Path) -> None:
    """Of files of more than ten minutes one moment of each bar is read."""
    page_code.bundle('export * from "./src/media";', tmp_path / "page.mjs")
    loud = [100, _BARS - 1]
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(4000)
        for bar in range(_BARS):
            file.writeframes((b"\xff" if bar in loud else b"\x80") * 2 * 4000)
    drawn = page_code.answers(
        f"""
import {{ openAsBlob }} from "node:fs";
const {{ Media }} = await import("./page.mjs");
const media = await Media.open(await openAsBlob({json.dumps(str(tmp_path / "long.wav"))}));
const peaks = new Float32Array({_BARS});
await media.draw(peaks, () => undefined);
peaks.forEach((peak, bar) => peak > 0.5 && server.answers.push(bar));
end();
""",
        tmp_path,
    )
    assert drawn == [str(bar) for bar in loud]
