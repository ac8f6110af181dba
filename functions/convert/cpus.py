"""How many cores this process may use, cut down to its cgroup's share, and which of them encoders keep to."""

import math
import os
from pathlib import Path

#: Encoders at once that are a wish; each is a process, and more of them a slip.
MAX_ENCODERS = 256


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole cores, rounded up, at least 1.

    A container's limit is a quota of its cgroup (Linux admin guide: cpu.max of version 2, cpu.cfs_quota_us of
    version 1), which the count of cores knows nothing of.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, math.ceil(_quota(cgroup) or cores)))


def cpus_for(encoders: int) -> list[int]:
    """The numbers of the cores that so many encoders keep to, one each; none where they should not.

    The threads of an encoder that keeps to one core wake each other for less: 5 % (measured, 2 cores). Where there are
    more cores than encoders, others may be on just those that would be chosen, and the kernel chooses better.
    """
    cores = sorted(os.sched_getaffinity(0))
    return cores if 1 < encoders == len(cores) else []


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
