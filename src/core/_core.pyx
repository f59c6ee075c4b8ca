"""The compiled side of fastrnn: packed parameters, passes over a layer, streams, threads.

Compiled once, for any CPU; the kernels come as a table of C functions (kernel/kernels.h) of the chosen instruction set
and dtype. Callers have validated every argument: shapes agree, dtypes are the model's, the last axis is contiguous.
Here buffers are laid out, rows are split over threads, and results are unpacked.

One module in several files, each with what it uses from the others in its first lines; none uses one below it:

    buffers          aligned memory, and a free list of it
    threads          a pool of threads, Ctrl-C during long calls
    parameters       Parameters: one direction's weights, packed for the kernels
    batch            Batch: how the rows of a batch are ordered and copied
    calls            Call: the tasks of one call and the memory they work in
    forward_layer    one layer, all its directions, forward
    gradients        parameter and input gradients from gate gradients
    backward_layer   one layer backward
    streams          StreamCore: steps with a state of their own
    chains           Chain: streams of layers that read each other's outputs
    pools            RowSteps, Slots: steps of any of many streams, and which stream lies where
    dense            Dense: affine maps
    learning         optimizer updates, norms
    tensors          what fastrnn.pytorch asks torch's tensors in every call
"""

cimport cython
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np

include "kernel/structs.pxi"

cnp.import_array()

cdef extern from "machine.h" nogil:
    ctypedef unsigned long long fp_mode
    fp_mode read_fp()
    fp_mode flush_subnormals()
    void flush_subnormals_from(fp_mode old)
    void restore_fp(fp_mode mode)
    bint cpu_runs(int isa)
    int usable_cpus()

cdef object FLOAT32 = np.dtype(np.float32), FLOAT64 = np.dtype(np.float64)

ACTIVATIONS = {"sigmoid": SIGMOID, "tanh": TANH, "relu": RELU, "affine": AFFINE, "leaky_relu": LEAKY_RELU,
               "thresholded_relu": THRESHOLDED_RELU, "scaled_tanh": SCALED_TANH, "hard_sigmoid": HARD_SIGMOID,
               "elu": ELU, "softsign": SOFTSIGN, "softplus": SOFTPLUS}
KINDS = {"rnn_tanh": RNN_TANH, "rnn_relu": RNN_RELU, "lstm": LSTM, "gru": GRU, "gru_before": GRU_BEFORE}


cdef kernel_table* table_of(capsule) except NULL:
    return <kernel_table*>PyCapsule_GetPointer(capsule, "fastrnn.kernel_table")


include "buffers.pxi"
include "threads.pxi"
include "parameters.pxi"
include "batch.pxi"
include "calls.pxi"
include "forward_layer.pxi"
include "gradients.pxi"
include "backward_layer.pxi"
include "shared_steps.pxi"
include "stream_passes.pxi"
include "streams.pxi"
include "chains.pxi"
include "pools.pxi"
include "dense.pxi"
include "learning.pxi"
include "tensors.pxi"


def isa_runs(int number):
    """Tell whether CPU and operating system support an instruction set.

    Parameters
    ----------
    number : int
        Its number in src/kernel/simd.h: 0 scalar, 1 baseline, 2 AVX2, 3 AVX-512.

    Returns
    -------
    bool
    """
    return cpu_runs(number)


def vector_length(capsule):
    """Return how many elements a vector of a kernel table has.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table.

    Returns
    -------
    int
    """
    return table_of(capsule).vlen


def use_dot(capsule, use=None):
    """Choose whether a table of narrow weights uses the CPU's instruction for sums of products, where it has one.

    Parameters are packed for the choice that holds then. Tests turn it off, to run what other CPUs run.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table.
    use : bool or None, default None
        The choice. None: as it was.

    Returns
    -------
    bool
        Whether it is used now.
    """
    cdef kernel_table* table = table_of(capsule)
    if use is not None:
        table.fast = use and table.has_dot
    return bool(table.fast)


def elementwise(capsule, bint is_tanh, cnp.ndarray x):
    """Apply the kernels' own tanh or sigmoid, subnormals kept: what the accuracy tests measure.

    Parameters
    ----------
    capsule : PyCapsule
        The kernel table.
    is_tanh : bool
        True: tanh. False: sigmoid.
    x : ndarray
        Contiguous, of the table's dtype.

    Returns
    -------
    ndarray
        Shaped as x.
    """
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
    """Return the floating-point mode of this thread; tests compare it before and after a call.

    Returns
    -------
    int
        MXCSR on x86, FPCR on 64-bit ARM, 0 elsewhere.
    """
    return read_fp()
