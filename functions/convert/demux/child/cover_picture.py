"""The process that makes a JPEG of a picture in another format, by Pillow.

It has the picture and the JPEG as open files, can open no others, and dies with its parent.
"""

import json
import os
import sys
from typing import Any

from functions.convert.demux.protocol import MAX_PIXELS
from functions.convert.sandbox import limits

#: Pixels of the longer side, at most: what music stores deliver.
MAX_SIDE = 3000
_QUALITY = 90
#: Pillow's names. Some of the others start programs.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")


def convert(image_module: Any, source: int, out: int) -> None:
    """Writes the picture as a JPEG.

    Args:
        image_module: Pillow's ``Image``.
        source: descriptor of the open file with the picture.
        out: descriptor of the open file for the JPEG.

    Raises:
        ValueError: the picture has too many pixels.
        OSError: the picture cannot be decoded, or is in none of the formats.
    """
    with os.fdopen(source, "rb") as file, image_module.open(file, formats=_FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:  # by the header: nothing is decoded yet
            raise ValueError(f"{picture.width} x {picture.height} pixels")
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        picture = _eight_bits(picture)
        if picture.has_transparency_data:
            layer = picture.convert("RGBA")
            picture = image_module.new("RGB", layer.size, "white")
            picture.paste(layer, mask=layer)
        with os.fdopen(out, "wb") as jpeg:
            picture.convert("RGB").save(jpeg, "JPEG", quality=_QUALITY)


def _eight_bits(picture: Any) -> Any:
    """Returns a picture of gray in 16 bits or in floating point with 8 bits; Pillow would clip it to white or black."""
    if picture.mode.startswith("I"):
        return picture.point(lambda level: level * (1 / 256))
    if picture.mode == "F" and picture.getextrema()[1] <= 1.0:
        return picture.point(lambda level: level * 255.0)
    return picture


def main() -> None:
    """Enters the limits, imports Pillow with all its formats, and enters the sandbox, in which it opens the picture."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    limits.enter(arguments["parent"], arguments["limits"])
    from PIL import AvifImagePlugin, Image

    Image.init()  # imports the formats
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the sandbox allows no others
    if arguments["confined"]:
        limits.confine(arguments["parent"], tasks=0)
    convert(Image, arguments["source"], arguments["out"])


if __name__ == "__main__":
    main()
