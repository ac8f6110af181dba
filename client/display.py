"""Shows what is under way on the terminal: a bar for each file that is being worked on, a line for each that has ended.

All of this goes to stderr, so that stdout has results only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

#: Characters of a file's name beside its bar.
_WIDTH: Final = 40


class Display:
    """Bars and lines. Threads may share it."""

    def __init__(self) -> None:
        """Prepares the display; without a terminal it has lines only."""
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the bars while the block runs."""
        with self._progress:
            yield

    def update(self, name: str, stage: str, done: float, total: float = 1.0) -> None:
        """Shows how far a file is in a stage."""
        if name not in self._tasks:
            short = printable(name if len(name) <= _WIDTH else f"{name[: _WIDTH - 1]}…")
            self._tasks[name] = self._progress.add_task(stage, total=total, name=short)
        self._progress.update(self._tasks[name], description=printable(stage), completed=done, total=total)

    def end(self, name: str, line: str) -> None:
        """Replaces a file's bar by a line."""
        task = self._tasks.pop(name, None)
        if task is not None:
            self._progress.remove_task(task)
        self.line(line)

    def line(self, line: str) -> None:
        """Writes a line above the bars."""
        self._console.print(Text(printable(line)), soft_wrap=True)

    def result(self, line: str) -> None:
        """Writes a line to stdout; the bars, which may be on the same terminal, are taken away meanwhile."""
        is_shown = self._progress.live.is_started
        if is_shown:
            self._progress.stop()
        click.echo(line)
        if is_shown:
            self._progress.start()


def printable(text: str) -> str:
    """Returns the text without characters that control a terminal, which names of files and responses may have."""
    return "".join(character if character.isprintable() else "?" for character in text)
