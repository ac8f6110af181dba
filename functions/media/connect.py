"""Opens the media stores that the environment names."""

from collections.abc import Mapping
from urllib.parse import unquote

from functions.media.interface import Media
from functions.settings import BadSetting


def connect(environ: Mapping[str, str]) -> Media:
    """Returns the media stores that the environment names; they connect at their first use.

    Args:
        environ: has ``MONGO_URI``, and ``MONGO_MP3_URI`` if the MP3s are on another server; or ``MEDIA_DIR``, a
            directory. ``MONGO_URI`` takes precedence, so it can be set where a directory is the default. The databases
            are ``videos``, ``pieces`` and ``mp3s``, unless a URI names its own.

    Raises:
        BadSetting: no store is named, a URI is malformed, or two stores share a database: a video must not be taken
            for an MP3.
    """
    if uri := environ.get("MONGO_URI"):
        from functions.media.gridfs import GridFSStore

        servers, database = _split("MONGO_URI", uri)
        places = [(uri, servers, database or "videos"), (uri, servers, "pieces"), (uri, servers, "mp3s")]
        if mp3_uri := environ.get("MONGO_MP3_URI"):
            servers, database = _split("MONGO_MP3_URI", mp3_uri)
            places[2] = (mp3_uri, servers, database or "mp3s")
        if len({place[1:] for place in places}) < len(places):
            raise BadSetting(
                "MONGO_URI and MONGO_MP3_URI must name different databases, and neither may be named pieces."
            )
        return Media(*(GridFSStore(uri, database) for uri, _, database in places))
    if directory := environ.get("MEDIA_DIR"):
        from functions.media.directory import DirectoryStore

        return Media(*(DirectoryStore(f"{directory}/{name}") for name in ("videos", "pieces", "mp3s")))
    raise BadSetting("Set MONGO_URI to a MongoDB server or MEDIA_DIR to a directory: media must be stored somewhere.")


def _split(name: str, uri: str) -> tuple[str, str]:
    """Returns the servers that a MongoDB URI names, and its database or an empty string."""
    scheme, _, rest = uri.partition("://")
    servers, _, database = rest.partition("?")[0].partition("/")
    if scheme not in ("mongodb", "mongodb+srv") or not servers:
        raise BadSetting(f"{name} is not a MongoDB URI: write mongodb://USER:PASSWORD@HOST:27017/DATABASE.")
    return servers.rpartition("@")[2], unquote(database).partition(".")[0]
