# The C side as Cython sees it: simd.h and activations.h (for each instruction set) and kernels.h (shared). Cython takes
# `real` and `vf` for float; the C compiler knows what simd.h makes of them. Uses structs.

cdef extern from "simd.h" nogil:
    ctypedef float real
    ctypedef float vf
    enum: VLEN
    enum: ROWS1
    enum: ROWS2
    enum: ROWS3
    enum: ROWS4
    enum: SMALL_AHEAD
    enum: GROUP3
    enum: GROUP4
    vf vload(const real* p)
    void vstore(real* p, vf v)
    vf vload_part(const real* p, Py_ssize_t n)
    void vstore_part(real* p, vf v, Py_ssize_t n)
    void prefetch(const void* p, Py_ssize_t n)
    void prefetch_shared(const void* p, Py_ssize_t n)
    vf vset(real x)
    vf vfma(vf a, vf b, vf c)
    void transpose_block(real* to, Py_ssize_t to_row, const real* from_, Py_ssize_t from_row, Py_ssize_t rows)
    vf vmax(vf a, vf b)
    vf vsqrt(vf x)
    vf vsigmoid(vf x)
    vf vsigmoid_complement(vf x)
    vf vtanh(vf x)
    vf vrelu(vf x)
    vf compute_now(vf v)
    void keep_value(vf v)
    vf vrelu_gradient(vf h, vf d)

include "structs.pxi"

cdef extern from "math.h" nogil:
    double INFINITY

cdef extern from "activations.h" nogil:
    vf vactivate(const activation* f, vf a, double clip)
    vf vslope(const activation* f, vf a, double clip)
