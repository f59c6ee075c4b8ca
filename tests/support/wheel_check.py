"""Checks a source distribution and the wheel that was built from it: ``python wheel_check.py FOLDER``.

The folder holds one of each, and ``venv``, an environment in which the wheel was installed. Used by ``make wheel``.
Writes ``contents.txt`` into it: every file of both with its size and SHA-256, the libraries that the compiled modules
need, and the tools that compiled them.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 5_000_000       # bytes of a wheel
# The compiled modules of a wheel, as far as its platform has them; and what else is no file of the repository.
MODULES = re.compile(r"fastrnn/_(core|(baseline|avx2|avx512)_float(32|64))\.[\w-]+\.(so|pyd)")
METADATA = re.compile(r"fastrnn-[\w.+]+\.dist-info/"
                      r"(METADATA|WHEEL|RECORD|entry_points\.txt|top_level\.txt|licenses/LICENSE)")
# Shared libraries of C itself, which every Linux has: a module may need no other.
LIBRARIES = re.compile(r"(libc|libm|libpthread|ld-linux[\w-]*)\.so(\.\d+)?|libc\.musl-\w+\.so\.1")
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


def strangers(path, tracked):
    """The files of a wheel that are neither tracked files of the package nor a compiled module nor metadata."""
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist()
                if not (MODULES.fullmatch(name) or METADATA.fullmatch(name)
                        or (name in tracked and name.startswith("fastrnn/")))]


def needed_libraries(modules):
    """The shared libraries that compiled modules name; nothing where the system has no readelf."""
    if shutil.which("readelf") is None:
        return set()
    printed = subprocess.run(["readelf", "-d", *modules], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", printed))


def tools(files):
    """What made a wheel: the compiler and the Cython of its modules, and setuptools, as its files name them."""
    for name, data in files.items():
        if name.endswith((".so", ".pyd")):
            yield from (found.decode() for found in re.findall(rb"(?:GCC: \(|clang version )[ -~]+", data))
            yield from (f"Cython {found.decode().replace('_', '.')}" for found in re.findall(rb"_cython_(\d\w+)", data))
        elif name.endswith(".dist-info/WHEEL"):
            yield from re.findall(r"^Generator: (.*)", data.decode(), re.M)


def check_contents(sdist, wheel, python):
    """Refuses a wheel that holds, or links to, what it should not, and writes what both archives hold."""
    names = tracked_files() or sdist_files(sdist)
    if other := strangers(wheel, names):
        sys.exit(f"{wheel.name}: no files of the package: {other}")
    modules = sorted(python.parents[1].glob("lib/python*/site-packages/fastrnn/*.so"))
    libraries = needed_libraries(modules) if modules else set()
    if other := [name for name in libraries if not LIBRARIES.fullmatch(name)]:
        sys.exit(f"{wheel.name}: its modules need {other}")
    with zipfile.ZipFile(wheel) as archive:
        files = [(f"{wheel.name}/{entry.filename}", archive.read(entry)) for entry in archive.infolist()]
    lines = [f"# made by {tool}" for tool in sorted(set(tools(dict(files))))]
    lines += [f"# needs {name}" for name in sorted(libraries)]
    with tarfile.open(sdist) as archive:
        files += [(f"{sdist.name}/{entry.name}", archive.extractfile(entry).read())
                  for entry in archive if entry.isfile()]
    files += [(path.name, path.read_bytes()) for path in (wheel, sdist)]
    lines += [f"{hashlib.sha256(data).hexdigest()} {len(data):9} {name}" for name, data in files]
    (sdist.parent / "contents.txt").write_text("\n".join(lines) + "\n")
    return f"contents.txt: {len(files) - 2} files; links to {', '.join(sorted(libraries)) or 'unknown libraries'}"


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
    print(check_contents(sdist, wheel, folder / "venv/bin/python"))
