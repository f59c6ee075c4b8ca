"""How many CPUs this process may use: by its affinity, and by the quotas of control groups (Linux)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

# Of version 2, "cpu.max" holds a quota and a period, "max 100000" where there is none; version 1 has a file for each,
# and -1 where there is no quota.
_FILES = {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}
# Where the groups are by convention, for systems that do not say where they are mounted: version, group, folder.
_USUAL = [(1, "/", "/sys/fs/cgroup/cpu"), (2, "/", "/sys/fs/cgroup")]


def usable_cpus() -> int:
    """Count the CPUs that this process may use by its affinity and its groups' quotas, at least 1.

    Parts of a CPU are left out: with a quota of 1.5, two threads would have the system stop both of them for a quarter
    of the time, in the midst of work that they wait for each other to do.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, int(min(cpus, quota())))


def quota(root: str = "/") -> float:
    """CPUs granted to this process by its control group and those above it; infinity without a quota.

    Parameters
    ----------
    root : str
        The folder in which /proc and /sys/fs/cgroup are looked for: tests have one of their own.
    """
    groups = _groups(root)
    granted = float("inf")
    for version, mounted, folder in _mounts(root) if groups else ():
        if version in groups:
            for level in _levels(groups[version], mounted, folder):
                granted = min(granted, _granted(os.path.join(root, level.lstrip("/")), version))
    return granted


def _lines(root: str, name: str) -> list[str]:
    try:
        with open(os.path.join(root, "proc/self", name), errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _groups(root: str) -> dict[int, str]:
    """Version -> the path of this process's group, of those that limit CPUs."""
    groups = {}
    for line in _lines(root, "cgroup"):         # number:controllers:path, without controllers in version 2
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups[2] = path
        elif "cpu" in controllers.split(","):
            groups[1] = path
    return groups


def _mounts(root: str) -> Iterator[tuple[int, str, str]]:
    """Version, group and folder of everything mounted that limits CPUs: the group's files are in the folder."""
    lines = _lines(root, "mountinfo")
    if not lines:
        yield from _USUAL
    for line in lines:
        # number, parent, device, group, folder, options, any number of others, "-", type, source, its options
        place, _, kind = line.partition(" - ")
        words, kinds = place.split(" "), kind.split(" ")
        if len(words) < 5 or len(kinds) < 3:
            continue
        version = 2 if kinds[0] == "cgroup2" else 1 if kinds[0] == "cgroup" and "cpu" in kinds[2].split(",") else 0
        if version:
            yield version, _plain(words[3]), _plain(words[4])


def _plain(text: str) -> str:
    """A path whose blanks and the like stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _levels(group: str, mounted: str, folder: str) -> Iterator[str]:
    """The folders of a group and of those above it, as far as they are seen below a mounted group.

    A container may see nothing but its own group, in the place of the first: then that is the only level.
    """
    names, above = [[name for name in path.split("/") if name] for path in (group, mounted)]
    names = names[len(above):] if names[:len(above)] == above and ".." not in names else []
    for depth in range(len(names), -1, -1):
        yield os.path.join(folder, *names[:depth])


def _granted(folder: str, version: int) -> float:
    """The quota of one group; infinity where it has none."""
    try:
        words = []
        for name in _FILES[version]:
            with open(os.path.join(folder, name)) as file:
                words += file.read().split()
        limit, period = words
        return float("inf") if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return float("inf")             # no such file at this level
