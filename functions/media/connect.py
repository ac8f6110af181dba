"""Opens the media stores that the environment names."""

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

from functions.media.interface import Media
from functions.settings import BadSetting, number


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
        buckets = [GridFSStore(uri, database) for uri, _, database in places]
        is_shared = places[0][1] == places[2][1]
        disks = (("videos", "pieces", "mp3s"),) if is_shared else (("videos", "pieces"), ("mp3s",))
        media = Media(buckets[0], buckets[1], buckets[2], space=buckets[0].space, disks=disks)
        return media if is_shared else replace(media, mp3_space=buckets[2].space)
    if directory := environ.get("MEDIA_DIR"):
        from functions.media.directory import DirectoryStore

        floor = min_free(environ)
        stores = [DirectoryStore(f"{directory}/{name}", floor) for name in ("videos", "pieces", "mp3s")]
        return Media(stores[0], stores[1], stores[2], space=stores[0].space)
    raise BadSetting("Set MONGO_URI to a MongoDB server or MEDIA_DIR to a directory: media must be stored somewhere.")


def min_free(environ: Mapping[str, str]) -> int | None:
    """Returns MIN_FREE_BYTES, the bytes that uploads leave free; None for a share of the disk.

    Raises:
        BadSetting: it is not a number.
    """
    return int(number(environ, "MIN_FREE_BYTES", 0)) if environ.get("MIN_FREE_BYTES") else None


def _split(name: str, uri: str) -> tuple[str, str]:
    """Returns the servers that a MongoDB URI names, and its database or an empty string."""
    scheme, _, rest = uri.partition("://")
    servers, _, database = rest.partition("?")[0].partition("/")
    if scheme not in ("mongodb", "mongodb+srv") or not servers:
        raise BadSetting(f"{name} is not a MongoDB URI: write mongodb://USER:PASSWORD@HOST:27017/DATABASE.")
    return servers.rpartition("@")[2], unquote(database).partition(".")[0]
