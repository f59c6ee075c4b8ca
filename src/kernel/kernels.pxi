"""The kernels of one instruction set and one dtype: a table of C functions in a capsule, nothing else.

Every file _<isa>_<dtype>.pyx includes this one and is compiled with flags of its own (setup.py). Reading order:
kernels.h (the data), simd.h (the vector, tanh and sigmoid), activations.h (the others), tile.pxi (all the arithmetic),
products.pxi (over a whole batch), forward.pxi, backward.pxi, the cells (lstm.pxi, gru.pxi, rnn.pxi: each forward with
its gradient below), small.pxi (one row of a few units), packing.pxi, update.pxi (optimizers).

One step of one layer goes: for a panel of hidden units and a few rows, the tile sums all gates in registers; the
cell's activations follow on those sums while they are in L1; the new state and output are stored. Gate
pre-activations never travel through memory. Each output's sum is: bias, then x's k in order, then h's k in order.
That order depends on the sizes I and H alone, which is what makes streamed, batched, chunked and threaded results
equal to the bit.

A kernel checks no argument and allocates nothing: core has done both.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset

include "declarations.pxi"

cdef enum: LOOK_EVERY = 1000000      # vector operations between looks at the clock: well under a millisecond


# Counts the vector operations of a task; every LOOK_EVERY of them, whether the call was cancelled.
cdef inline bint should_stop_after(poll_state* poll, isize* done, isize work) noexcept nogil:
    done[0] += work
    if done[0] < LOOK_EVERY:
        return False
    done[0] = 0
    return should_stop(poll)


include "tile.pxi"
include "products.pxi"
include "forward.pxi"
include "backward.pxi"
include "lstm.pxi"
include "gru.pxi"
include "rnn.pxi"
include "small.pxi"
include "packing.pxi"
include "update.pxi"


# Reads n bytes once, as a step of one row reads its weights: the least time a step can take, for benchmarks.
cdef void read_once(const void* data, isize n) noexcept nogil:
    cdef vf[8] total
    cdef isize i, u
    cdef const real* p = <const real*>data
    for u in range(8):
        total[u] = vset(0)
    for i in range(n // (8 * VLEN * <isize>sizeof(real))):
        for u in range(8):
            total[u] = total[u] + vload(p + u * VLEN)
        p += 8 * VLEN
    for u in range(1, 8):
        total[0] = total[0] + total[u]
    keep_value(total[0])


cdef void tanh_array(void* out, const void* x, isize n) noexcept nogil:
    cdef isize i
    for i in range((n + VLEN - 1) // VLEN):
        store_output(<real*>out, vtanh(load_output(<const real*>x, i, n)), i, n)


cdef void sigmoid_array(void* out, const void* x, isize n) noexcept nogil:
    cdef isize i
    for i in range((n + VLEN - 1) // VLEN):
        store_output(<real*>out, vsigmoid(load_output(<const real*>x, i, n)), i, n)


cdef kernel_table TABLE
TABLE.vlen = VLEN
TABLE.itemsize = TABLE.weight_size = sizeof(real)
TABLE.group = 1
TABLE.teams = True
TABLE.forward = forward
TABLE.small_step = small_step
TABLE.backward = backward
TABLE.accumulate = accumulate
TABLE.plan_accumulate = plan_accumulate
TABLE.multiply = multiply
TABLE.plan_multiply = plan_multiply
TABLE.plan_forward = plan_forward
TABLE.plan_backward = plan_backward
TABLE.read = read_once
TABLE.tanh = tanh_array
TABLE.sigmoid = sigmoid_array
TABLE.update = update
TABLE.squares = squares
TABLE.pack = TABLE.pack_weights = pack
TABLE.unpack = unpack
TABLE.pack_t = pack_t

table = PyCapsule_New(&TABLE, "fastrnn.kernel_table", NULL)
