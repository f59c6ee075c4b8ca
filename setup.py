"""Builds fastrnn._core and one kernel module for every instruction set and dtype; the metadata is in pyproject.toml.

Environment variables:

FASTRNN_SCALAR=1
    Builds the baseline kernels without vector extensions, as a compiler that lacks them would (make scalar).
FASTRNN_DEBUG=1
    Builds with Cython's bounds, overflow and None checks, with C assertions, and with traps where the kernels overflow
    an integer or leave a C array, at -O1 -g (make debug).
FASTRNN_COVERAGE=1
    Builds with gcc's counters, which say how often each line ran, at -O0 (make coverage-compiled).
FASTRNN_SANITIZE=address,undefined
    Builds with these sanitizers, at -O1 -g1 (make asan, make tsan).
FASTRNN_ISAS=baseline,avx2
    Builds the kernels of these instruction sets alone, and with them those of float32 and float64.
SOURCE_DATE_EPOCH
    Seconds since 1970 that archives give as the time of every file; `make sdist` and `make wheel` take the last
    commit's. The same sources, tools and time then give the same source distribution and the same wheel, to the byte.
CC
    The C compiler. On Windows, CC=clang-cl builds every instruction set; Visual C++ has no vector extensions and builds
    the scalar baseline alone.
"""
import gzip
import os
import shutil
import sys
import sysconfig
import tarfile
from glob import glob
from pathlib import Path

# First of all: a 32-bit Python seldom has what is imported below. A cross build is told by the settings of its target.
if sys.maxsize <= 2**32 or sysconfig.get_config_var("SIZEOF_VOID_P") == 4:
    raise SystemExit("fastrnn needs a 64-bit Python: its kernels are neither built nor tested for 32-bit machines")

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import PlatformError


def asked(name):
    """Whether an environment variable is set to something other than 0."""
    return os.environ.get(name, "0") not in ("", "0")


X86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))
SCALAR, DEBUG, COVERAGE = asked("FASTRNN_SCALAR"), asked("FASTRNN_DEBUG"), asked("FASTRNN_COVERAGE")
SANITIZE = os.environ.get("FASTRNN_SANITIZE", "")
CLANG_CL = Path(os.environ.get("CC", "")).stem.lower() == "clang-cl"

# Name of an instruction set: its number in src/kernel/simd.h, and the flags of its modules.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
ISAS = {"baseline": (0 if SCALAR else 1, [])}
if X86 and not SCALAR:
    ISAS.update(avx2=(2, AVX2), avx512=(3, AVX512))
if os.environ.get("FASTRNN_ISAS"):
    ISAS = {isa: ISAS[isa] for isa in os.environ["FASTRNN_ISAS"].split(",")}

# FMA is explicit, so contraction is off: one expression has one result, wherever it is inlined. Never -ffast-math.
GNU_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing"]
DEBUG_FLAGS = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-fsanitize=signed-integer-overflow,bounds",
               "-fsanitize-undefined-trap-on-error"]
# In a kernel module `cdef inline` has to mean inlined: a tile is fast only when its sizes are constants.
ALWAYS_INLINE = ("CYTHON_INLINE", "__inline__ __attribute__((always_inline))")

DIRECTIVES = dict(language_level=3, boundscheck=DEBUG, nonecheck=DEBUG, initializedcheck=DEBUG, wraparound=False,
                  cdivision=True, auto_pickle=False, autotestdict=False, freethreading_compatible=True)

NO_COMPILER = ("fastrnn needs a C compiler to build from source: install gcc or clang (Debian and Ubuntu: apt install "
               "build-essential; macOS: xcode-select --install; Windows: Build Tools for Visual Studio), "
               "or install a wheel")


class Build(build_ext):
    """Gives each extension the flags of the compiler at hand, says so where there is none, and has Cython write the C.

    A source distribution needs neither, so both wait until something is compiled.
    """

    def build_extensions(self):
        self.find_compiler()
        if self.compiler.compiler_type == "msvc" and not CLANG_CL:
            self.scalar_only()
        else:
            self.add_gnu_flags()
        self.parallel = self.parallel or os.cpu_count()
        self.write_c()
        super().build_extensions()

    def write_c(self):
        """Has Cython write the C of every extension below build/, where its source is newer.

        Written by another Cython, or from another NumPy's declarations, it is written anew.
        """
        folder = "build/debug" if DEBUG else "build/coverage" if COVERAGE else "build"
        stamp, versions = Path(folder, "written-by"), f"Cython {Cython.__version__}, NumPy {numpy.__version__}\n"
        written = cythonize(self.extensions, include_path=["src"], build_dir=folder, compiler_directives=DIRECTIVES,
                            force=not stamp.exists() or stamp.read_text() != versions)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(versions)
        for extension, with_c in zip(self.extensions, written):
            extension.sources = with_c.sources

    def find_compiler(self):
        """Makes sure that there is a compiler."""
        if self.compiler.compiler_type == "msvc":
            try:
                self.compiler.initialize(self.plat_name)
            except PlatformError:
                raise SystemExit(NO_COMPILER) from None
            if CLANG_CL:
                self.compiler.cc = shutil.which(os.environ["CC"]) or os.environ["CC"]
        command = self.compiler.cc if self.compiler.compiler_type == "msvc" else self.compiler.compiler_so[0]
        if shutil.which(command) is None:
            raise SystemExit(f"{NO_COMPILER} ({command!r} was not found)")

    def add_gnu_flags(self):
        """GCC, Clang and clang-cl."""
        for extension in self.extensions:
            flags = [*GNU_FLAGS, *extension.extra_compile_args]
            if DEBUG:
                flags += DEBUG_FLAGS
            if COVERAGE:
                flags += ["-O0", "--coverage"]
                extension.extra_link_args = ["--coverage"]
            if SANITIZE:
                flags += [f"-fsanitize={SANITIZE}", "-g1", "-O2", "-fno-omit-frame-pointer"]
                extension.extra_link_args = [f"-fsanitize={SANITIZE}"]
            if CLANG_CL:
                flags = [f"/clang:{flag}" for flag in flags]
            extension.extra_compile_args = flags
            if extension.name != "fastrnn._core" and not COVERAGE:      # gcc counts the lines of a function once
                extension.define_macros.append(ALWAYS_INLINE)

    def scalar_only(self):
        """Any other compiler: the baseline, a vector being one number."""
        self.extensions = [extension for extension in self.extensions if "avx" not in extension.name]
        for extension in self.extensions:
            extension.define_macros = [(name, "0" if name == "FASTRNN_ISA" else value)
                                       for name, value in extension.define_macros]


def usual_mode(path, is_folder):
    """The permissions of a file or folder in an archive, which do not follow the umask of whoever built it."""
    return 0o755 if is_folder or path.endswith((".so", ".pyd")) else 0o644


class Sdist(sdist):
    """Writes the archive in one order, by one owner and, where SOURCE_DATE_EPOCH is set, with one time for all."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if format != "gztar" or epoch is None:
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def settle(entry):
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = int(epoch)
            entry.mode = usual_mode(entry.name, entry.isdir())
            return entry

        path = f"{base_name}.tar.gz"
        folder = Path(root_dir or ".")
        with (open(path, "wb") as file, gzip.GzipFile("", "wb", mtime=int(epoch), fileobj=file) as packed,
              tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive):
            archive.add(folder / base_dir, base_dir, filter=settle)     # a folder's entries are added in sorted order
        return path


class Wheel(bdist_wheel):
    """Gives what goes into the archive the usual permissions."""

    def write_wheelfile(self, wheelfile_base, *arguments, **options):
        super().write_wheelfile(wheelfile_base, *arguments, **options)
        for path in Path(self.bdist_dir).rglob("*"):
            path.chmod(usual_mode(path.name, path.is_dir()))


def extension(name, folder, macros, flags=()):
    if DEBUG:
        macros = [*macros, ("FASTRNN_DEBUG", "1")]
    return Extension(f"fastrnn.{name}", [f"src/{folder}/{name}.pyx"],
                     include_dirs=["src/kernel", numpy.get_include()], define_macros=list(macros),
                     extra_compile_args=list(flags), depends=glob("src/*/*.pxi") + glob("src/*/*.h"))


def kernel(isa, dtype):
    number, flags = ISAS[isa]
    macros = [("FASTRNN_ISA", str(number))]
    if dtype == "float64":
        macros.append(("FASTRNN_DOUBLE", "1"))
    return extension(f"_{isa}_{dtype}", "kernel", macros, flags)


extensions = [kernel(isa, dtype) for isa in ISAS for dtype in ("float32", "float64")]
core = extension("_core", "core", [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")])
core.cython_directives = dict(overflowcheck=DEBUG)      # the kernels trap: Cython cannot raise where a vector returns
extensions.append(core)

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": Build, "sdist": Sdist, "bdist_wheel": Wheel},
)
