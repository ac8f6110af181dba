"""Holds processes to a share of a CPU by control groups, as a container's CPU limit does."""

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scripts.benchmarks.timing import CannotMeasure

_ROOT: Final = Path("/sys/fs/cgroup")
#: Microseconds in which a group may use its share: Kubernetes' default.
_PERIOD: Final = 100_000


class CpuGroup:
    """A control group; a context manager. Its processes and all that they start share one limit."""

    def __init__(self, name: str) -> None:
        """Names the group; entering creates it.

        Args:
            name: of the group, which must not exist.
        """
        self._is_unified = (_ROOT / "cgroup.controllers").exists()
        self._path = (_ROOT if self._is_unified else _ROOT / "cpu") / f"{name}-{os.getpid()}"

    def __enter__(self) -> Self:
        try:
            if self._is_unified:
                (_ROOT / "cgroup.subtree_control").write_text("+cpu")
            self._path.mkdir()
        except OSError as error:
            raise CannotMeasure(f"This user cannot limit CPU time here, which root usually can: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a process of the group is still ending
            self._path.rmdir()

    def add(self, pid: int) -> None:
        """Moves a process into the group."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def limit(self, cpus: float) -> None:
        """Sets the limit, in CPUs."""
        quota = round(cpus * _PERIOD)
        if self._is_unified:
            (self._path / "cpu.max").write_text(f"{quota} {_PERIOD}")
        else:
            (self._path / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (self._path / "cpu.cfs_quota_us").write_text(str(quota))
