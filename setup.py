"""Builds fastrnn._core and one kernel module for every instruction set and dtype; metadata is in pyproject.toml.

FASTRNN_SCALAR=1 builds the baseline without vector extensions, as a compiler that lacks them would.
FASTRNN_SANITIZE=address,undefined builds with sanitizers (make sanitize).
"""
import os
import platform
import sys

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

X86 = platform.machine().lower() in ("x86_64", "amd64") and sys.maxsize > 2**32
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
SCALAR = os.environ.get("FASTRNN_SCALAR", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTRNN_SANITIZE", "")

# name -> (FASTRNN_ISA of src/simd.h, compiler flags)
ISAS = {"baseline": (0 if SCALAR else 1, [])}
if X86 and not SCALAR:
    ISAS.update(avx2=(2, AVX2), avx512=(3, AVX512))

# FMA is explicit, so contraction is off: one expression, one result, wherever it is inlined. Never -ffast-math.
GNU_FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing"]
HEADERS = ["src/simd.h", "src/activations.h", "src/kernels.h", "src/machine.h"]
PARTS = ["structs", "declarations", "kernels", "tile", "forward", "lstm", "gru", "rnn", "backward", "packing", "update",
         "pool", "parameters", "batch", "passes", "stream", "dense", "learning"]
DEPENDS = HEADERS + [f"src/{part}.pxi" for part in PARTS]


def extension(name, **options):
    return Extension(f"fastrnn.{name}", [f"src/{name}.pyx"], include_dirs=["src", numpy.get_include()],
                     depends=[path for path in DEPENDS if os.path.exists(path)], **options)


def kernel(isa, dtype):
    number, flags = ISAS[isa]
    macros = [("FASTRNN_ISA", str(number))]
    if dtype == "float64":
        macros.append(("FASTRNN_DOUBLE", "1"))
    return extension(f"_{isa}_{dtype}", define_macros=macros, extra_compile_args=flags)


class Build(build_ext):
    """Adds the flags of GCC and Clang; another compiler gets the scalar baseline."""

    def build_extensions(self):
        gnu = self.compiler.compiler_type in ("unix", "mingw32")
        for ext in self.extensions:
            if gnu:
                ext.extra_compile_args = [*GNU_FLAGS, *ext.extra_compile_args]
                if ext.name != "fastrnn._core":
                    # cdef inline means inlined: a tile is one only when its sizes are constants
                    ext.define_macros.append(("CYTHON_INLINE", "__inline__ __attribute__((always_inline))"))
                if SANITIZE:
                    ext.extra_compile_args += [f"-fsanitize={SANITIZE}", "-g", "-O1"]
                    ext.extra_link_args = [f"-fsanitize={SANITIZE}"]
            else:
                ext.define_macros = [("FASTRNN_ISA", "0") if name == "FASTRNN_ISA" else (name, value)
                                     for name, value in ext.define_macros]
        if not gnu:
            self.extensions = [ext for ext in self.extensions if "avx" not in ext.name]
        self.parallel = self.parallel or os.cpu_count()
        super().build_extensions()


extensions = [kernel(isa, dtype) for isa in ISAS for dtype in ("float32", "float64")]
if os.path.exists("src/_core.pyx"):
    extensions.append(extension("_core", define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]))

setup(
    ext_modules=cythonize(extensions, include_path=["src"], build_dir="build",
                          compiler_directives=dict(language_level=3, boundscheck=False, wraparound=False,
                                                   cdivision=True, initializedcheck=False,
                                                   auto_pickle=False, autotestdict=False)),
    cmdclass={"build_ext": Build},
)
