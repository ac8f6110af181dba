"""Where the client cuts an MP3 that has silences."""

from pathlib import Path

import pytest

from client.errors import ClientError
from client.silence import cuts
from tests.support import clips

#: Sound, and half a second of noise at about -63 dB or of nothing in turn, from 0.0, 1.0, 2.0, 3.0 and 4.0 s on.
_SOUND = (
    "aevalsrc=exprs='if(lt(mod(t,1),0.5)*lt(t,0.1+4.5),if(lt(mod(t,2),1),0,random(0)*0.002-0.001),"
    "0.4*sin(2*PI*440*t))':s=44100:d=5.2"
)


@pytest.fixture(scope="module")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("silences") / "a b.mp3"
    clips.run("-f", "lavfi", "-i", _SOUND, "-af", "volume=0:enable='gt(t,5)'", "-c:a", "libmp3lame", "-q:a", "4", path)
    return path


def test_silences_between_sounds_are_cut_in_their_middle(mp3: Path) -> None:
    """The ones at the beginning and at the end belong to the first and to the last part."""
    assert cuts(mp3, 0.3, -50) == pytest.approx([1.25, 2.25, 3.25, 4.25], abs=0.01)
    assert cuts(mp3, 0.3, -80) == pytest.approx([2.25, 4.25], abs=0.01)
    assert cuts(mp3, 0.6, -50) == []


def test_what_is_no_mp3_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"no sound")
    with pytest.raises(ClientError, match="ffmpeg cannot decode the MP3"):
        cuts(tmp_path / "a.mp3", 1, -50)


def test_playlist_from_the_server_opens_no_other_file(mp3: Path) -> None:
    mp3.with_name("private.mp3").write_bytes(mp3.read_bytes())
    playlist = mp3.with_name("whole.mp3")
    playlist.write_text("ffconcat version 1.0\nfile private.mp3\n")
    with pytest.raises(ClientError, match="ffmpeg cannot decode the MP3"):
        cuts(playlist, 0.3, -50)
