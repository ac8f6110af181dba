"""Opens the media stores that the environment names."""

from collections.abc import Mapping
from urllib.parse import unquote

from functions.media.interface import Media
from functions.settings import BadSetting


def connect(environ: Mapping[str, str]) -> Media:
    """The media stores that the environment names; nothing is connected yet.

    Args:
        environ: ``MONGO_URI``, and ``MONGO_MP3_URI`` where the MP3s lie on another server; or ``MEDIA_DIR``, a
            directory. ``MONGO_URI`` wins, so that it can be added where a directory is the default. The databases
            are ``videos``, ``pieces`` and ``mp3s``, save where a URI names one.

    Raises:
        BadSetting: it names none, or one that is no URI, or the same database twice: a video must not pass for an MP3.
    """
    if uri := environ.get("MONGO_URI"):
        from functions.media.gridfs import GridFSStore

        server, named = _split("MONGO_URI", uri)
        places = [(uri, server, named or "videos"), (uri, server, "pieces"), (uri, server, "mp3s")]
        if mp3_uri := environ.get("MONGO_MP3_URI"):
            server, named = _split("MONGO_MP3_URI", mp3_uri)
            places[2] = (mp3_uri, server, named or "mp3s")
        if len({place[1:] for place in places}) < len(places):
            raise BadSetting("MONGO_URI and MONGO_MP3_URI must name different databases, and neither may be pieces.")
        return Media(*(GridFSStore(where, database) for where, _, database in places))
    if directory := environ.get("MEDIA_DIR"):
        from functions.media.directory import DirectoryStore

        return Media(*(DirectoryStore(f"{directory}/{name}") for name in ("videos", "pieces", "mp3s")))
    raise BadSetting(
        "Set MONGO_URI to a MongoDB server, or MEDIA_DIR to a directory, so that media have a place to lie."
    )


def _split(name: str, uri: str) -> tuple[str, str]:
    """The servers and the database that a MongoDB URI names."""
    scheme, _, rest = uri.partition("://")
    servers, _, database = rest.partition("?")[0].partition("/")
    if scheme not in ("mongodb", "mongodb+srv") or not servers:
        raise BadSetting(f"{name} is no MongoDB URI: write mongodb://USER:PASSWORD@HOST:27017/DATABASE.")
    return servers.rpartition("@")[2], unquote(database).partition(".")[0]
