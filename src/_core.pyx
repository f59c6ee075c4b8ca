"""What stands between the Python classes and the kernels: packed parameters, passes over a layer, streams, threads.

Compiled once, for any CPU; the kernels come as a table of C functions (kernels.h) of the chosen ISA and dtype.
Callers have validated every argument (fastrnn/_validation.py): shapes agree, dtypes are the model's, the last
axis is contiguous. Here buffers are laid out, rows split over threads, and results unpacked.
"""

cimport cython
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np

include "structs.pxi"

cnp.import_array()

cdef extern from "machine.h" nogil:
    ctypedef unsigned long long fp_mode
    fp_mode read_fp()
    fp_mode flush_subnormals()
    void restore_fp(fp_mode mode)
    bint cpu_runs(int isa)

ACTIVATIONS = {"sigmoid": SIGMOID, "tanh": TANH, "relu": RELU, "affine": AFFINE, "leaky_relu": LEAKY_RELU,
               "thresholded_relu": THRESHOLDED_RELU, "scaled_tanh": SCALED_TANH, "hard_sigmoid": HARD_SIGMOID,
               "elu": ELU, "softsign": SOFTSIGN, "softplus": SOFTPLUS}
KINDS = {"rnn_tanh": RNN_TANH, "rnn_relu": RNN_RELU, "lstm": LSTM, "gru": GRU, "gru_before": GRU_BEFORE}


# Blocks that were let go wait here for the next call of about their size: to have the system map and clear fresh pages
# each time costs a training step up to as much as its arithmetic. (Below SPARE_BYTES malloc keeps them itself.)
cdef enum: SPARE_BYTES = 131072, LARGE_BYTES = 8388608, SPARES = 32, LARGE_SPARES = 8
cdef list spares = [], large_spares = []


cdef list spares_of(isize size):
    return large_spares if size >= LARGE_BYTES else spares


cdef cnp.ndarray new_block(cnp.npy_intp size, bint zero):
    if zero:
        return cnp.PyArray_ZEROS(1, &size, cnp.NPY_UINT8, 0)
    return cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)


# 64-byte aligned memory of a x b elements. Contents undefined, or zero.
@cython.no_gc_clear
cdef class Buffer:
    cdef cnp.ndarray memory
    cdef void* data

    def __cinit__(self, isize a, isize b, isize itemsize, bint zero=False):
        if <double>a * <double>b * <double>itemsize > 9.0e18:
            raise MemoryError(f"a buffer of {a} x {b} elements passes the address space")
        cdef cnp.npy_intp size = a * b * itemsize + 64
        if size >= SPARE_BYTES:
            self.memory = self.reuse(size)
        if self.memory is None:
            try:
                self.memory = new_block(size, zero)
            except MemoryError:         # the spares may be what stands in the way
                spares.clear()
                large_spares.clear()
                self.memory = new_block(size, zero)
        elif zero:
            memset(cnp.PyArray_DATA(self.memory), 0, size)
        self.data = <void*>((<uintptr_t>cnp.PyArray_DATA(self.memory) + 63) & ~<uintptr_t>63)

    # The smallest spare block of this size or up to a quarter more, or None.
    cdef cnp.ndarray reuse(self, isize size):
        cdef list among = spares_of(size)
        cdef isize i, have, best = -1, least = size + size // 4 + 1
        for i in range(len(among)):
            have = cnp.PyArray_DIM(<cnp.ndarray>among[i], 0)
            if size <= have < least:
                best, least = i, have
        return among.pop(best) if best >= 0 else None

    def __dealloc__(self):
        cdef isize size
        cdef list among
        if self.memory is None or spares is None or large_spares is None:   # None: the interpreter is going down
            return
        size = cnp.PyArray_DIM(self.memory, 0)
        if size >= SPARE_BYTES:
            among = spares_of(size)
            if len(among) == (LARGE_SPARES if size >= LARGE_BYTES else SPARES):
                del among[0]        # the longest unused
            among.append(self.memory)


include "pool.pxi"
include "parameters.pxi"
include "batch.pxi"
include "passes.pxi"
include "stream.pxi"
include "dense.pxi"
include "learning.pxi"


def isa_runs(int number):
    """Whether CPU and operating system support an ISA by its number in simd.h."""
    return cpu_runs(number)


cdef kernel_table* table_of(capsule) except NULL:
    return <kernel_table*>PyCapsule_GetPointer(capsule, "fastrnn.kernel_table")


def vector_length(capsule):
    """Elements in a vector of a kernel table."""
    return table_of(capsule).vlen


def elementwise(capsule, bint is_tanh, cnp.ndarray x):
    """The kernels' own tanh (else sigmoid) of a contiguous array, subnormals kept: what the accuracy tests measure."""
    cdef kernel_table* table = table_of(capsule)
    cdef cnp.ndarray out = np.empty_like(x)
    cdef isize n = x.size
    with nogil:
        if is_tanh:
            table.tanh(cnp.PyArray_DATA(out), cnp.PyArray_DATA(x), n)
        else:
            table.sigmoid(cnp.PyArray_DATA(out), cnp.PyArray_DATA(x), n)
    return out


def floating_point_mode():
    """The floating-point mode of this thread (x86: MXCSR); tests compare it before and after a call."""
    return read_fp()
