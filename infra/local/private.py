"""Keeps the data directory private, whatever the umask is and whatever permissions its files had before."""

import os
import re
import stat
from pathlib import Path

from events.errors import Mp3burstError

#: What the platform and ``scripts/demo`` create in a data directory.
_OURS = re.compile(r"(mp3burst|broker)\.db.*|platform\.(log|sock)|lock|keys|media|mail|demo(\..*)?")
#: What a file system has by itself.
_ALSO = {"lost+found"}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class NotPrivate(Mp3burstError):
    """A file in the data directory can be read by others, and belongs to another user."""


def make_private(data: Path) -> None:
    """Takes the permissions of others from this process's future files, and from the platform's existing ones.

    The directory itself is closed too, unless it contains something else. Each entry is closed last, after what is in
    it: an entry that is closed needs no second look, and a look that was interrupted is repeated.

    Args:
        data: an existing directory.

    Raises:
        NotPrivate: a file of the platform belongs to another user.
    """
    os.umask(_OTHERS)
    entries = [*data.iterdir()]
    for entry in entries:
        if _OURS.fullmatch(entry.name) and not entry.is_symlink() and _is_open(entry):
            _close_tree(entry)
    is_shared = any(not _OURS.fullmatch(entry.name) and entry.name not in _ALSO for entry in entries)
    if not is_shared and data.stat().st_uid == os.geteuid():
        _close(data)


def _close_tree(top: Path) -> None:
    for folder, _, files in os.walk(top, topdown=False):
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                _close(path)
        _close(Path(folder))
    _close(top)


def _is_open(path: Path) -> bool:
    return bool(path.stat().st_mode & _OTHERS)


def _close(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise NotPrivate(
            f"{path} can be read by others and belongs to another user: run mp3burst as that user, or choose another "
            "--data."
        ) from error
