"""Converts files: uploads one after another, while the server converts those before, and downloads what is done."""

import hashlib
import json
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from client.display import Display
from client.download import download
from client.errors import (
    ClientError,
    DirectoryUnreadable,
    NotLoggedIn,
    RecordsUnusable,
    RequestRefused,
    TargetExists,
)
from client.follow import Follower, Job, find, has_ended
from client.records import Content, Records
from client.server import Retries, Server
from client.sound.excerpt import open_sound
from client.sound.view import View
from client.upload import Upload
from events.errors import Mp3burstError, TryAgain

#: Bytes of a name.
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Task:
    """A file to convert.

    Attributes:
        video: the file; of an address, what would be its name.
        target: where its MP3 goes.
        content: what identifies its bytes and options, whatever its name. If it is set, the record stays when the MP3
            is there.
        url: the address from which the server is to fetch the file; empty if the file is here.
        other_target: returns where else the MP3 goes if another file has its name by then; None: the conversion fails.
        lost: returns an error that ends the run, if a file could not be read or written because its directory is gone.
    """

    video: Path
    target: Path
    content: str = ""
    url: str = ""
    other_target: Callable[[], Path] | None = None
    lost: Callable[[OSError], DirectoryUnreadable | None] = lambda _: None

    @property
    def file(self) -> str:
        """The file or the address, as it was named."""
        return self.url or str(self.video)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a file, as ``--json`` prints it.

    Attributes:
        file: the video, or its address.
        status: ``done``; ``failed``; or ``uploaded`` if its end was not awaited.
        job: the id of its job; None if there is none.
        mp3: where the MP3 is.
        error: why it failed and what to do.
        warning: what is missing from the MP3.
    """

    file: str
    status: str
    job: str | None = None
    mp3: str | None = None
    error: str | None = None
    warning: str | None = None


class _Uploaded:
    """What became of an upload: a job, or an error."""

    def __init__(self, task: Task, content: str = "", job: str = "", error: Exception | None = None) -> None:
        self.task = task
        self.content = content
        self.job = job
        self.error = error

    @property
    def ends_all(self) -> bool:
        """Whether the next file would fare no better: the key, the server, a directory or the program is at fault."""
        fatal = NotLoggedIn | TryAgain | DirectoryUnreadable | RecordsUnusable
        return isinstance(self.error, fatal) or not isinstance(self.error, Mp3burstError | None)


class Converter:
    """Converts files on one server with the same options."""

    def __init__(
        self,
        server: Server,
        records: Records,
        form: Mapping[str, str],
        display: Display,
        *,
        is_awaited: bool = True,
        is_whole: bool = False,
        is_overwriting: bool = False,
    ) -> None:
        """Prepares conversions.

        Args:
            server: where they are made.
            records: where uploads are remembered.
            form: the options.
            display: shows how far they are.
            is_awaited: whether to wait for the MP3s and download them.
            is_whole: whether to upload the pictures of videos, too.
            is_overwriting: whether MP3s replace files.
        """
        self._server = server
        self._records = records
        self._form = form
        self._display = display
        self._is_awaited = is_awaited
        self._is_overwriting = is_overwriting
        self._open = View if is_whole else partial(open_sound, form=form)
        self._begin(None)

    def _begin(self, report: Callable[[Outcome], object] | None) -> None:
        """Forgets what another run left behind."""
        self._report = report
        self._uploaded: queue.Queue[_Uploaded | None] = queue.Queue()
        self._pending: dict[str, _Uploaded] = {}
        self._is_uploading = True
        self._stopped = threading.Event()

    def run(self, tasks: Iterable[Task], report: Callable[[Outcome], object] | None = None) -> None:
        """Converts the files.

        Args:
            tasks: the files.
            report: gets what became of each file as soon as it ends.

        Raises:
            NotLoggedIn: the server does not accept the key.
            TryAgain: the server could not be reached often enough. Another run continues.
        """
        self._begin(report)
        thread = threading.Thread(target=self._upload_all, args=(list(tasks),), daemon=True)
        thread.start()
        try:
            self._await()
        except Mp3burstError:
            # Another run uploads the same files: two threads would make two jobs of one.
            self._stopped.set()
            thread.join()
            raise

    def _await(self) -> None:
        follower = Follower(self._server, self._waiting)
        with self._display.shown():
            while self._is_uploading or self._pending:
                if not self._pending:
                    self._take(self._uploaded.get())
                for job in follower.changes():
                    self._on_change(job)

    def _waiting(self) -> set[str]:
        while not self._uploaded.empty():
            self._take(self._uploaded.get())
        return set(self._pending)

    def _take(self, uploaded: _Uploaded | None) -> None:
        """Takes note of a file that was uploaded; None is behind the last one."""
        if uploaded is None:
            self._is_uploading = False
        elif uploaded.error is not None and uploaded.ends_all:
            raise uploaded.error
        elif uploaded.error is not None:
            self._end(uploaded, "failed", error=str(uploaded.error))
        elif not self._is_awaited:
            self._end(uploaded, "uploaded")
        else:
            self._pending[uploaded.job] = uploaded
            self._on_change(find(self._server, uploaded.job))

    def _on_change(self, job: Job) -> None:
        uploaded = self._pending.get(job["job"])
        if uploaded is None:
            return
        name = uploaded.task.video.name
        if not has_ended(job):
            self._display.update(name, job["stage"], job["progress"])
            return
        if job["status"] == "done":
            try:
                target = self._download(uploaded, job["mp3"])
                self._end(uploaded, "done", mp3=str(target), warning=job["warning"])
            except ClientError as error:
                if isinstance(error, RecordsUnusable):
                    raise
                lost = _lost(uploaded.task, error)
                if lost is not None:
                    raise lost from error
                self._end(uploaded, "failed", error=str(error))
        else:
            self._records.forget(uploaded.content)
            self._end(uploaded, "failed", error=job["error"])
        del self._pending[job["job"]]

    def _download(self, uploaded: _Uploaded, fid: str) -> Path:
        """Downloads an MP3; returns where it is."""
        task = uploaded.task
        target = task.target
        update = partial(self._display.update, task.video.name, "downloading")
        while True:
            try:
                download(
                    self._server,
                    fid,
                    target,
                    update,
                    self._records,
                    is_overwriting=self._is_overwriting,
                    has_other_target=task.other_target is not None,
                )
                break
            except TargetExists:
                if task.other_target is None:
                    raise
                target = task.other_target()
                self._records.move(task.content, target)
        if task.content:
            self._records.finish(task.content)
        else:
            self._records.forget(uploaded.content)
        return target

    def _end(
        self,
        uploaded: _Uploaded,
        status: str,
        mp3: str | None = None,
        error: str | None = None,
        warning: str | None = None,
    ) -> None:
        video = uploaded.task.video
        job = uploaded.job or None
        outcome = Outcome(file=uploaded.task.file, status=status, job=job, mp3=mp3, error=error, warning=warning)
        self._display.end(video.name, describe(outcome))
        if self._report is not None:
            self._report(outcome)

    def _upload_all(self, tasks: list[Task]) -> None:
        for task in tasks:
            if self._stopped.is_set():
                return
            uploaded = self._upload(task)
            self._uploaded.put(uploaded)
            if uploaded.ends_all:
                return
        self._uploaded.put(None)

    def _upload(self, task: Task) -> _Uploaded:
        try:
            if task.url:
                return self._name(task)
            with self._open(task.video) as view:
                metadata = {"filename": task.video.name, **self._form}
                content = self._content(task, task.content or fingerprint(view, metadata))
                upload = Upload(self._server, self._records, content, view, metadata, self._stopped)
                name = task.video.name
                job = upload.run(lambda done: self._display.update(name, "uploading", done, view.size))
        except OSError as error:
            refusal = ClientError(f"{task.video} cannot be read: {error.strerror}.")
            return _Uploaded(task, error=task.lost(error) or refusal)
        except Exception as error:  # the main thread waits for the upload, and raises it
            return _Uploaded(task, error=_lost(task, error) or error)
        return _Uploaded(task, content.id, job)

    def _content(self, task: Task, id_: str) -> Content:
        is_target_free = self._is_awaited and not self._is_overwriting and task.other_target is None
        return Content(id_, task.target.absolute(), is_target_free)

    def _name(self, task: Task) -> _Uploaded:
        """Names the address of a file to the server, which fetches it; a repeated run finds the same job."""
        known = [task.url, str(task.target.absolute()), dict(self._form)]
        content = self._content(task, hashlib.sha256(json.dumps(known).encode()).hexdigest())
        with self._records.creating(content) as record:
            key = record.location if record is not None else secrets.token_hex(16)
            if record is None:
                self._records.begin(content.id, key, content.target)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        retries = Retries(self._stopped)
        while True:
            try:
                body = json.dumps({**self._form, "url": task.url}).encode()
                answer = self._server.request("POST", "/upload", body, headers)
                return _Uploaded(task, content.id, self._server.parse(answer.data)["job"])
            except TryAgain as error:
                retries.pause(error)
            except RequestRefused:
                self._records.forget(content.id, key)
                raise


def _lost(task: Task, error: Exception) -> DirectoryUnreadable | None:
    """Returns the error that ends the run, if the cause of this one is that a directory is gone."""
    return task.lost(error.__cause__) if isinstance(error.__cause__, OSError) else None


def describe(outcome: Outcome) -> str:
    """Returns a line for people."""
    if outcome.status == "done":
        return f"{outcome.file} -> {outcome.mp3}" + (f" ({outcome.warning})" if outcome.warning else "")
    if outcome.status == "uploaded":
        return f"{outcome.file} is job {outcome.job}"
    return f"{outcome.file}: {outcome.error}"


def fingerprint(view: View, metadata: Mapping[str, str]) -> str:
    """Returns what identifies a file that is unchanged, and what is made of it, without reading it."""
    known = [str(view.path.resolve()), view.identity, view.size, dict(metadata)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def targets(
    videos: Iterable[Path | str],
    directory: Path | None,
    *,
    is_overwriting: bool,
    is_reserved: Callable[[Path], bool] = lambda _: False,
) -> tuple[list[Task], list[Outcome]]:
    """Returns the tasks for some videos, or their addresses: each MP3 is in the directory, or beside its video.

    Args:
        videos: the files and addresses.
        directory: that of the MP3s; None for those of the videos.
        is_overwriting: whether MP3s replace files.
        is_reserved: returns whether an empty file is what a run left that was killed before the MP3 was in its place.

    Returns:
        The tasks, and what became of the videos whose MP3s exist, perhaps since a run that was interrupted.

    Raises:
        ClientError: two MP3s would be the same file.
    """
    tasks: dict[Path, Task] = {}
    failed = []
    for named in videos:
        url = named if isinstance(named, str) else ""
        video = _name_of(named) if isinstance(named, str) else named
        target = (video.parent if directory is None else directory) / mp3_of(video.stem)
        same = tasks.get(target)
        if same is not None:
            raise ClientError(f"{same.file} and {named} would both become {target}: convert them one by one with -o.")
        if _is_taken(target, is_reserved) and (not is_overwriting or (not url and target.samefile(video))):
            failed.append(Outcome(file=str(named), status="failed", error=str(TargetExists(target))))
            continue
        tasks[target] = Task(video, target, url=url)
    return list(tasks.values()), failed


def _is_taken(target: Path, is_reserved: Callable[[Path], bool]) -> bool:
    return target.exists() and not (target.stat().st_size == 0 and is_reserved(target))


def _name_of(url: str) -> Path:
    """Returns the name of the file at an address, without folders."""
    parts = urlsplit(url)
    name = unquote(PurePosixPath(parts.path).name, errors="replace").replace("/", "_").replace("\0", "_")
    return Path(name if name not in ("", ".", "..") else parts.hostname or "download")


def mp3_of(stem: str, suffix: str = "") -> str:
    """Returns the name of the MP3 of a file, shortened to what file systems take."""
    end = f"{suffix}.mp3"
    name = os.fsencode(stem)
    free = _MAX_NAME - len(os.fsencode(end))
    return f"{stem if len(name) <= free else name[:free].decode(errors='ignore')}{end}"
