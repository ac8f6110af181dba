"""Converts files on this machine, with the server's own converter."""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from client.convert import Outcome, Task, describe
from client.display import Display
from client.errors import CONVERTER, ClientError
from client.files import place
from events.errors import Mp3burstError, TryAgain
from functions.options import Options

#: Packages of the extra convert that every conversion imports.
_NEEDED: Final = ("av", "imageio_ffmpeg", "numpy", "mutagen")


def convert_all(
    tasks: Iterable[Task],
    form: Mapping[str, str],
    display: Display,
    report: Callable[[Outcome], object],
    *,
    is_overwriting: bool = False,
) -> None:
    """Converts the files one after another.

    Args:
        tasks: the files.
        form: the options.
        display: gets a line for each.
        report: gets what became of each file as soon as it ends.
        is_overwriting: whether MP3s replace files.

    Raises:
        ClientError: the converter is not installed.
    """
    if any(find_spec(module) is None for module in _NEEDED):
        raise ClientError(f"The converter is not installed: pip install '{CONVERTER}' adds it.")
    from functions.convert.__main__ import convert
    from functions.convert.cpus import MAX_ENCODERS

    encoders = min(os.cpu_count() or 1, MAX_ENCODERS)
    for task in tasks:
        file = str(task.video)
        try:
            name = Path.replace if is_overwriting else place
            result = convert(task.video, task.target, Options.from_form(form), encoders, name)
            outcome = Outcome(file=file, status="done", mp3=str(task.target), warning=result.warning)
        except TryAgain as error:  # the service tries again by itself; here the user has to
            outcome = Outcome(file=file, status="failed", error=f"{str(error).partition(';')[0]}: try again.")
        except Mp3burstError as error:
            outcome = Outcome(file=file, status="failed", error=str(error))
        except OSError as error:
            message = f"{error.filename or task.target}: {error.strerror}."
            outcome = Outcome(file=file, status="failed", error=message)
        display.line(describe(outcome))
        report(outcome)
