"""How many CPUs a process may use, in made-up systems: control groups of both versions, nested, in containers."""

import math

import pytest

from fastrnn._base import cpus

ROOT = "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
V2 = ROOT + "30 21 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (ROOT + "30 21 0:26 / /sys/fs/cgroup ro shared:4 - tmpfs tmpfs ro,mode=755\n"
      "31 30 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
      "32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
      "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
# A container of version 1 without a namespace of groups: it is told its group's path on the host, and sees that alone.
DOCKER = V1.replace("0:28 / ", "0:28 /docker/4f ")
# A container of version 2 with a namespace: its group is the root that it sees. Beside it, one entered from outside.
OWN = V2

SYSTEMS = {
    "version 2 without a quota": (math.inf, V2, "0::/user.slice\n", {"sys/fs/cgroup/user.slice/cpu.max": "max 100000"}),
    "version 2": (2.0, V2, "0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "200000 100000"}),
    "version 2, part of a CPU": (1.5, V2, "0::/a\n", {"sys/fs/cgroup/a/cpu.max": "75000 50000\n"}),
    "version 2, a limit above": (1.0, V2, "0::/a/b/c\n", {"sys/fs/cgroup/a/cpu.max": "100000 100000",
                                                          "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
                                                          "sys/fs/cgroup/a/b/c/cpu.max": "max 100000"}),
    "version 2, a group beside": (math.inf, V2, "0::/a\n", {"sys/fs/cgroup/b/cpu.max": "100000 100000"}),
    "version 2, in a container": (3.0, OWN, "0::/\n", {"sys/fs/cgroup/cpu.max": "300000 100000"}),
    "version 2, entered from outside": (3.0, OWN, "0::/../../x\n", {"sys/fs/cgroup/cpu.max": "300000 100000"}),
    "version 2, mounted elsewhere": (2.0, V2.replace("/sys/fs/cgroup ", "/mnt/my\\040groups "), "0::/a\n",
                                     {"mnt/my groups/a/cpu.max": "200000 100000"}),
    "version 1": (2.0, V1, "5:cpuset:/\n4:cpu,cpuacct:/a\n0::/\n",
                  {"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "200000",
                   "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000"}),
    "version 1 without a quota": (math.inf, V1, "4:cpu,cpuacct:/a\n",
                                  {"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1",
                                   "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000"}),
    "version 1, a limit above": (0.5, V1, "4:cpu,cpuacct:/a/b\n",
                                 {"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "5000",
                                  "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "10000",
                                  "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "300000",
                                  "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}),
    "version 1, in a container": (2.0, DOCKER, "4:cpu,cpuacct:/docker/4f\n",
                                  {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                                   "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}),
    "version 1, below a container's": (1.0, DOCKER, "4:cpu,cpuacct:/docker/4f/job\n",
                                       {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000",
                                        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
                                        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "100000",
                                        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000"}),
    "no word of what is mounted": (2.0, None, "4:cpu,cpuacct:/a\n0::/\n",
                                   {"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000",
                                    "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000"}),
    "no groups": (math.inf, ROOT, None, {}),
    "broken files": (math.inf, V2 + "no mount\n", "0::/a\n", {"sys/fs/cgroup/a/cpu.max": "many 100000",
                                                              "sys/fs/cgroup/cpu.max": "100000 0"}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_quotas(tmp_path, name):
    expected, mounts, groups, files = SYSTEMS[name]
    for path, text in {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **files}.items():
        if text is not None:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
    assert cpus.quota(str(tmp_path)) == expected


@pytest.mark.parametrize("quota, expected", [(math.inf, 8), (64.0, 8), (8.0, 8), (2.0, 2), (1.99, 1), (1.5, 1),
                                             (0.5, 1)])
def test_threads_of_a_quota(monkeypatch, quota, expected):
    """Whole CPUs alone, at least one, and no more than the affinity grants."""
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "quota", lambda: quota)
    assert cpus.usable_cpus() == expected
