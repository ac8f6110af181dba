"""The names of MP3s."""


def mp3_name(filename: str) -> str:
    """Returns the file name of the MP3 that is made from this file."""
    stem = filename.rpartition(".")[0] or filename
    return f"{stem[:251]}.mp3"
