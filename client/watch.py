"""Watches a directory and converts what is put there: each content once, although the command may be killed."""

import errno
import hashlib
import json
import mimetypes
import os
import stat
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from client.convert import Converter, Outcome, Task, mp3_of
from client.display import Display
from client.errors import DirectoryUnreadable, RecordsUnusable
from client.records import Records, identity_of
from events.errors import TryAgain

_CHUNK: Final = 1 << 20  # bytes
#: The errors of a full disk, and of an exhausted quota.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Watch:
    """A directory, and the conversions of what is put there."""

    def __init__(
        self,
        directory: Path,
        output: Path,
        converter: Converter,
        records: Records,
        display: Display,
        form: Mapping[str, str],
    ) -> None:
        """Prepares to watch.

        Args:
            directory: what is watched, without what is below it.
            output: where the MP3s go.
            converter: converts files and keeps records of those that are done.
            records: its records.
            display: shows what happens.
            form: the options, which with a file's bytes tell whether it was converted.
        """
        self._directory = directory
        self._output = output
        self._converter = converter
        self._records = records
        self._display = display
        self._form = json.dumps(dict(form), sort_keys=True)
        self._seen: dict[Path, str] = {}
        self._handled: dict[Path, str] = {}

    def run(self, interval: float) -> None:
        """Converts what is there and what will be, without an end.

        Args:
            interval: seconds between two looks. A file is complete if it is the same in both.

        Raises:
            NotLoggedIn: the server does not accept the key.
        """
        problem = ""
        while True:
            try:
                self._convert(self._look())
                problem = ""
            except (TryAgain, DirectoryUnreadable, RecordsUnusable) as error:
                if str(error) != problem:
                    self._display.line(f"{error} Trying again.")
                problem = str(error)
            time.sleep(interval)

    def run_once(self, interval: float) -> bool:
        """Converts what is there; returns whether everything is done.

        Args:
            interval: as for ``run``.

        Raises:
            NotLoggedIn: the server does not accept the key.
            DirectoryUnreadable: a directory is gone, or that of the MP3s is full.
            TryAgain: the server could not be reached often enough. Another run continues.
        """
        self._look()
        time.sleep(interval)
        return self._convert(self._look())

    def _convert(self, complete: Mapping[Path, str]) -> bool:
        """Converts complete files that are not converted yet; returns whether all of them could be read and were."""
        tasks, unreadable = self._tasks(complete)
        outcomes: list[Outcome] = []

        def end(outcome: Outcome) -> None:
            outcomes.append(outcome)
            self._handled[Path(outcome.file)] = complete[Path(outcome.file)]

        self._converter.run(tasks, end)
        self._handled |= complete
        return not unreadable and all(outcome.status == "done" for outcome in outcomes)

    def _look(self) -> dict[Path, str]:
        """Returns the files that are complete and not handled yet, each with what changes if the file does.

        Raises:
            DirectoryUnreadable: the directory is gone.
        """
        before = self._seen
        try:
            self._seen = dict(self._files())
        except OSError as error:
            self._handled = {}
            raise DirectoryUnreadable(f"{self._directory} cannot be read: {error.strerror}.") from error
        # What is gone may come back with the disk that it is on, and may have failed because that was gone.
        self._handled = {path: identity for path, identity in self._handled.items() if path in self._seen}
        return {
            path: identity
            for path, identity in self._seen.items()
            if before.get(path) == identity and self._handled.get(path) != identity
        }

    def _files(self) -> Iterator[tuple[Path, str]]:
        for path in sorted(self._directory.iterdir()):
            kind = mimetypes.guess_type(path.name)[0] or ""
            if path.name.startswith(".") or path.suffix.lower() == ".mp3" or not kind.startswith(("video/", "audio/")):
                continue
            try:
                status = path.lstat()
            except OSError:  # it was deleted or renamed
                continue
            if stat.S_ISREG(status.st_mode):  # a symbolic link could lead to any file of the user
                yield path, identity_of(status)

    def _tasks(self, complete: Mapping[Path, str]) -> tuple[list[Task], list[Path]]:
        """Returns what is to be converted, nothing that is done and nothing twice, and what cannot be read."""
        unreadable = []
        tasks: dict[str, Task] = {}
        targets: set[Path] = set()
        for path, identity in complete.items():
            try:
                content = hashlib.sha256(f"{self._digest(path, identity)} {self._form}".encode()).hexdigest()
            except OSError as error:
                lost = self._lost(error)
                if lost is not None:
                    raise lost from error
                self._display.line(f"{path} cannot be read: {error.strerror}.")
                unreadable.append(path)
                continue
            record = self._records.find(content)
            if content in tasks or (record is not None and record.is_done):
                continue
            other = partial(self._take_free, path.stem, targets)
            target = record.target if record is not None else other()
            targets.add(target)
            tasks[content] = Task(path, target, content, other_target=other, lost=self._lost)
        return list(tasks.values()), unreadable

    def _lost(self, error: OSError) -> DirectoryUnreadable | None:
        """Returns the error to raise if not a file is the problem, but its directory, which may come back."""
        for directory, mode, use in ((self._directory, os.R_OK, "read"), (self._output, os.W_OK, "written")):
            if not os.access(directory, mode | os.X_OK):
                return DirectoryUnreadable(f"{directory} cannot be {use}: {error.strerror}.")
        if error.errno in _FULL:
            return DirectoryUnreadable(f"{error.filename or self._output} cannot be written: {error.strerror}.")
        return None

    def _take_free(self, stem: str, taken: set[Path]) -> Path:
        """Returns a file for an MP3 that does not exist and is not another's, and adds it to ``taken``."""
        number = 1
        while True:
            target = self._output / mp3_of(stem, "" if number == 1 else f" ({number})")
            if target not in taken and not os.path.lexists(target) and not self._records.is_target(target):
                taken.add(target)
                return target
            number += 1

    def _digest(self, path: Path, identity: str) -> str:
        known = self._records.digest(path, identity)
        if known is not None:
            return known
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        found = digest.hexdigest()
        self._records.keep_digest(path, identity, found)
        return found
