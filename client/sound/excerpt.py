"""Leaves the pictures out of a video before it is uploaded, if the MP3 is certain to be the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from client.sound import matroska, mp4
from client.sound.view import UnsupportedLayout, View

#: A view with more than this part of the file is not worth it.
_WORTHWHILE: Final = 0.9


def open_sound(path: Path, form: Mapping[str, str]) -> View:
    """Opens what is to be uploaded of a video: without its pictures, or the complete file.

    The complete file is needed for a cover from the video, and for files other than complete and plain mp4, mov,
    Matroska and WebM.

    Args:
        path: the video.
        form: the options of its conversion.
    """
    file = View(path)
    if form.get("cover", "none") != "none":
        return file
    for parse in (mp4.spans, matroska.spans):
        try:
            view = View(path, parse(file))
        except UnsupportedLayout:
            continue
        if view.identity == file.identity and view.size <= _WORTHWHILE * file.size:
            file.close()
            return view
        view.close()
    return file
