"""How many cores this process may use: those it may run on, cut down to its cgroup's share."""

import math
import os
from pathlib import Path

#: Encoders at once that are a wish; each is a process, and more of them a slip.
MOST_ENCODERS = 256


def available_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores, rounded up, at least 1.

    A container's limit is a quota of its cgroup (Linux admin guide: cpu.max of version 2, cpu.cfs_quota_us of
    version 1), which the count of cores knows nothing of.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, math.ceil(_quota(cgroup) or cores)))


def _quota(cgroup: Path) -> float | None:
    try:
        if (limits := cgroup / "cpu.max").exists():
            quota, period = limits.read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        share = float(quota) / float(period)
    except (OSError, ValueError):  # No cgroups here, or "max": no limit.
        return None
    return share if share > 0 else None
