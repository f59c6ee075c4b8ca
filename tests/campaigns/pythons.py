"""CPython built from Debian's source package, for the campaigns that need a Python that this machine does not have.

    python tests/campaigns/pythons.py 3.13
    python tests/campaigns/pythons.py 3.13 --free-threaded
    python tests/campaigns/pythons.py 3.13 --free-threaded --compiler clang-19 --tsan

Prints the path of the interpreter, which is below build/pythons, and builds it first where it is not there: some
minutes on two cores. Nothing is installed on this machine, and no list of its package manager is touched: apt-get gets
a list of Debian's suites and a state of a folder of its own. Needed are apt-get, a C compiler, make, and for a Python
with all its modules the headers of zlib, libffi and OpenSSL.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "pythons"
SUITES = ["sid", "forky", "trixie"]          # the newest first: free-threaded Pythons are mended in every release
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = os.environ.get("FASTRNN_DEBIAN_MIRROR", "http://deb.debian.org/debian")
NEEDED = {"apt-get": "apt", "make": "make", "cc": "build-essential", "xz": "xz-utils"}
MODULES = ["zlib", "ctypes", "ssl", "bz2", "lzma"]      # pip needs the first three


def interpreter(version, free_threaded=False, tsan=False):
    """Where the interpreter of a build is, or will be."""
    name = version + "t" * free_threaded
    return WORK / (name + "-tsan" * tsan) / "bin" / f"python{name}"


def run(command, log=None, **options):
    """Runs a command; where it fails, an error that ends in what it printed last."""
    result = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False, **options)
    if log is not None:
        with open(log, "a") as file:
            file.write(result.stdout)
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-30:])
        raise RuntimeError(f"exit status {result.returncode} of {' '.join(map(str, command[:8]))}\n{tail}")
    return result.stdout


# ---- The source -----------------------------------------------------------------------------------

def apt_get(folder):
    """The command apt-get with the lists and the state of a folder of its own."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text("".join(f"deb-src [signed-by={KEYRING}] {MIRROR} {suite} main\n"
                                                 for suite in SUITES))
    command = ["apt-get", "-q", "-y"]
    for option, value in {"Dir::State": folder, "Dir::State::status": folder / "status",
                          "Dir::State::lists": folder / "lists", "Dir::Cache": folder, "Dir::Etc::sourceparts": "-",
                          "Dir::Etc::sourcelist": folder / "sources.list", "APT::Sandbox::User": "root"}.items():
        command += ["-o", f"{option}={value}"]
    return command


def unpack_source(package):
    """The folder of a package's source as its authors released it, of the first suite that has it."""
    target = WORK / f"source-{package}"
    if target.exists():
        return target
    folder = WORK / "apt"
    command = apt_get(folder)
    run([*command, "update"])
    archives, errors = WORK / f"archives-{package}", []
    archives.mkdir(exist_ok=True)
    for suite in SUITES:
        try:
            run([*command, "source", "--download-only", f"{package}/{suite}"], cwd=archives)
            break
        except RuntimeError as error:       # a mirror may list what it does not hold
            errors.append(f"{suite}: {str(error).splitlines()[-1]}")
    else:
        raise RuntimeError(f"no source of {package} in {MIRROR}:\n" + "\n".join(errors))
    draft = WORK / f"draft-{package}"
    shutil.rmtree(draft, ignore_errors=True)
    with tarfile.open(max(archives.glob("*.orig.tar.?z"))) as archive:
        archive.extractall(draft)           # its checksum is in the list that Debian's key has signed
    next(draft.iterdir()).rename(target)
    draft.rmdir()
    return target


# ---- The build ------------------------------------------------------------------------------------

def build(version, free_threaded=False, tsan=False, compiler=None):
    """Builds that Python where it is not there, and returns the path of its interpreter.

    With tsan, ThreadSanitizer sees what the interpreter itself does: its memory, its locks and its reference counts.
    """
    python = interpreter(version, free_threaded, tsan)
    if (python.parents[1] / "ready").exists():
        return python
    missing = [f"{tool} (Debian: {package})" for tool, package in NEEDED.items() if not shutil.which(tool)]
    if missing:
        raise RuntimeError(f"building CPython needs {', '.join(missing)}")
    WORK.mkdir(parents=True, exist_ok=True)
    source, prefix = unpack_source(f"python{version}"), python.parents[1]
    folder, log = WORK / f"build-{prefix.name}", WORK / f"build-{prefix.name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(prefix, ignore_errors=True)
    folder.mkdir()
    log.unlink(missing_ok=True)
    options = [f"--prefix={prefix}", "--without-doc-strings", "--disable-test-modules"]
    options += ["--with-ensurepip=" + ("no" if tsan else "install")]        # pip takes minutes there
    options += ["--disable-gil"] * free_threaded + ["--with-thread-sanitizer"] * tsan
    # tests need one that is soon there, not a fast one; with debugging information, reports name lines
    environment = os.environ | {"OPT": "-DNDEBUG -O1 -fwrapv" + " -g1" * tsan}
    environment |= {"CC": compiler} if compiler else {}
    environment |= {"TSAN_OPTIONS": "report_bugs=0"} if tsan else {}        # what the build runs is not tried here
    run([source / "configure", *options], log, cwd=folder, env=environment)
    run(["make", f"-j{os.cpu_count()}"], log, cwd=folder, env=environment)
    # compileall prints its options and stops: a module of the library is compiled when it is first imported
    run(["make", "altinstall", "COMPILEALL_OPTS=--help"], log, cwd=folder, env=environment)
    absent = [module for module in MODULES if not can_import(python, module)]
    if set(absent) & set(MODULES[:3]):
        raise RuntimeError(f"CPython was built without {', '.join(absent)}: install their headers (Debian: zlib1g-dev "
                           "libffi-dev libssl-dev libbz2-dev liblzma-dev)")
    (prefix / "ready").touch()
    shutil.rmtree(folder)
    return python


def can_import(python, module):
    return subprocess.run([str(python), "-c", f"import {module}"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="such as 3.13")
    parser.add_argument("--free-threaded", action="store_true", help="without the global interpreter lock")
    parser.add_argument("--tsan", action="store_true", help="with ThreadSanitizer")
    parser.add_argument("--compiler", help="the C compiler; the default is configure's")
    arguments = parser.parse_args()
    try:
        print(build(arguments.version, arguments.free_threaded, arguments.tsan, arguments.compiler))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
