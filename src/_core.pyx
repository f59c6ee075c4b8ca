"""What stands between the Python classes and the kernels: packed parameters, passes over a layer, streams, threads.

Compiled once, for any CPU; the kernels come as a table of C functions (kernels.h) of the chosen ISA and dtype.
Callers have validated every argument (fastrnn/_validation.py): shapes agree, dtypes are the model's, the last
axis is contiguous. Here buffers are laid out, rows split over threads, and results unpacked.
"""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

import numpy as np

include "structs.pxi"

cnp.import_array()

cdef extern from "machine.h" nogil:
    ctypedef unsigned long long fp_mode
    fp_mode read_fp()
    fp_mode flush_subnormals()
    void restore_fp(fp_mode mode)
    bint cpu_runs(int isa)

KINDS = {"rnn_tanh": RNN_TANH, "rnn_relu": RNN_RELU, "lstm": LSTM, "gru": GRU, "gru_before": GRU_BEFORE}


# 64-byte aligned memory of a x b elements. Contents undefined, or zero.
cdef class Buffer:
    cdef object memory
    cdef void* data

    def __cinit__(self, isize a, isize b, isize itemsize, bint zero=False):
        if <double>a * <double>b * <double>itemsize > 9.0e18:
            raise MemoryError(f"a buffer of {a} x {b} elements passes the address space")
        cdef cnp.npy_intp size = a * b * itemsize + 64
        if zero:
            self.memory = cnp.PyArray_ZEROS(1, &size, cnp.NPY_UINT8, 0)
        else:
            self.memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
        self.data = <void*>((<uintptr_t>cnp.PyArray_DATA(self.memory) + 63) & ~<uintptr_t>63)


include "pool.pxi"
include "parameters.pxi"
include "batch.pxi"
include "passes.pxi"
include "stream.pxi"


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
