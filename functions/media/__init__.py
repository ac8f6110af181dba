"""The media stores, which keep videos, encoded pieces and MP3s in MongoDB GridFS or in a directory.

``connect`` opens them; everything else exported here is their common interface. A store's driver is imported only when
``connect`` needs it, so importing this package stays cheap.
"""

from functions.media.connect import connect
from functions.media.interface import (
    Appender,
    BlobCorrupt,
    BlobExists,
    BlobId,
    BlobNotFound,
    Checkpoint,
    Description,
    DiskFull,
    Media,
    MediaUnavailable,
    Reader,
    Space,
    StaleWriter,
    Stat,
    Store,
    Usage,
    Writer,
    is_blob_id,
    new_blob_id,
)
from functions.media.tagged import StoredMp3, open_mp3

__all__ = [
    "Appender",
    "BlobCorrupt",
    "BlobExists",
    "BlobId",
    "BlobNotFound",
    "Checkpoint",
    "Description",
    "DiskFull",
    "Media",
    "MediaUnavailable",
    "Reader",
    "Space",
    "StaleWriter",
    "Stat",
    "Store",
    "StoredMp3",
    "Usage",
    "Writer",
    "connect",
    "is_blob_id",
    "new_blob_id",
    "open_mp3",
]
