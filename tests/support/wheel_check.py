"""Checks a source distribution and the wheel that was built from it: ``python wheel_check.py FOLDER``.

The folder holds one of each, and ``venv``, an environment in which the wheel was installed. Used by ``make wheel``.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 5_000_000       # bytes of a wheel
# Tracked, and not in the sdist: settings of CI and of tools that work on a checkout.
LEFT_OUT = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml")


def sdist_files(path):
    """The files of a source distribution, without its folder and without what setuptools adds."""
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    return {name for name in names - {"PKG-INFO", "setup.cfg"} if not name.startswith("fastrnn.egg-info/")}


def tracked_files():
    """The files under version control; None where this is no checkout."""
    if not (ROOT / ".git").exists():
        return None
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return {name for name in names if name and (ROOT / name).exists() and not name.startswith(LEFT_OUT)}


def check_sdist(path):
    names, tracked = sdist_files(path), tracked_files()
    if tracked is not None and names != tracked:
        sys.exit(f"{path.name}: not in it: {sorted(tracked - names)}; in it, and not under version control: "
                 f"{sorted(names - tracked)}; see MANIFEST.in")
    return f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.2f} MB"


def check_wheel(path, python):
    """Runs the smoke test outside of the checkout, with the checkout's PYTHONPATH taken away."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, ROOT / "tests/support/wheel_smoke.py"], check=True, cwd=path.parent, env=environment)
    size = path.stat().st_size
    if size > LIMIT:
        sys.exit(f"{path.name}: {size / 1e6:.2f} MB, more than {LIMIT / 1e6:g}")
    return f"{path.name}: {size / 1e6:.2f} MB (limit {LIMIT / 1e6:g}), runs with NumPy alone"


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    sdist, = folder.glob("*.tar.gz")
    wheel, = folder.glob("*.whl")
    print(check_sdist(sdist))
    print(check_wheel(wheel, folder / "venv/bin/python"))
