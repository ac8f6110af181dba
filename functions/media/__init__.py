"""Media stores: where videos, pieces and MP3s are kept, in MongoDB GridFS or a directory.

``connect`` returns the stores; everything else here is the interface that they share. A store's driver is imported
when ``connect`` opens it, so that importing this package stays cheap.
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
    Media,
    MediaUnavailable,
    Reader,
    StaleWriter,
    Stat,
    Store,
    Writer,
    is_blob_id,
    new_blob_id,
)

__all__ = [
    "Appender",
    "BlobCorrupt",
    "BlobExists",
    "BlobId",
    "BlobNotFound",
    "Checkpoint",
    "Description",
    "Media",
    "MediaUnavailable",
    "Reader",
    "StaleWriter",
    "Stat",
    "Store",
    "Writer",
    "connect",
    "is_blob_id",
    "new_blob_id",
]
