"""The same commit gives the same source distribution and the same wheel, to the byte.

Run by `make reproducible`. The last commit is built twice, in clones of different depth, with another umask, time zone,
locale and hash seed, one after the other; archives that differ are named with the members that do. The tools are the
same both times: another compiler, or another release of Cython, NumPy or setuptools, may give other bytes.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "reproducible"
# Where each build takes place, and what differs between the machines of two people.
PLACES = {
    "one": (0o022, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
    "another/somewhat/deeper": (0o077, {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
}


def commit_time(checkout):
    """The time of a checkout's last commit in seconds since 1970."""
    return subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=checkout, check=True, capture_output=True,
                          text=True).stdout.strip()


def build(folder, umask, settings, options):
    """The archives of the last commit -> their SHA-256, built from a clone in a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True, umask=umask)
    environment = {**os.environ, **settings, "SOURCE_DATE_EPOCH": commit_time(folder)}
    environment.pop("PYTHONPATH", None)
    subprocess.run([sys.executable, "-m", "build", "-q", *options], cwd=folder, env=environment, umask=umask,
                   check=True, stdout=subprocess.DEVNULL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "dist").iterdir())}


def members(path):
    """What an archive says of each of its members, and the SHA-256 of their contents, in the archive's order."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return [(entry.filename, entry.date_time, oct(entry.external_attr >> 16),
                     hashlib.sha256(archive.read(entry)).hexdigest()) for entry in archive.infolist()]
    with tarfile.open(path) as archive:
        return [(entry.name, entry.mtime, oct(entry.mode), entry.uid, entry.uname,
                 hashlib.sha256(archive.extractfile(entry).read()).hexdigest() if entry.isfile() else None)
                for entry in archive]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sdist", action="store_true", help="the source distribution alone, which needs no compiler")
    parser.add_argument("--no-isolation", action="store_true",
                        help="build with the tools of this environment, not with PyPI's")
    parser.add_argument("--folder", type=Path, default=WORK, help="where to build (default: %(default)s)")
    arguments = parser.parse_args()
    options = ["--sdist"] * arguments.sdist + ["--no-isolation"] * arguments.no_isolation
    results = []
    for place, (umask, settings) in PLACES.items():
        results.append(build(arguments.folder / place, umask, settings, options))
        print(f"{place}: built with umask {umask:03o} and {settings}", flush=True)
    different = [name for name in {**results[0], **results[1]} if results[0].get(name) != results[1].get(name)]
    for name in different:
        print(f"{name} DIFFERS")
        paths = [arguments.folder / place / "dist" / name for place in PLACES]
        for a, b in zip(*map(members, paths)) if all(path.exists() for path in paths) else ():
            if a != b:
                print(f"    {a}\n    {b}")
    for name in results[0]:
        if name not in different:
            print(f"{results[0][name]}  {name}")
    print(f"{len(results[0]) - len(different)} of {len(results[0])} archives are the same to the byte")
    return bool(different) or not results[0]


if __name__ == "__main__":
    sys.exit(main())
