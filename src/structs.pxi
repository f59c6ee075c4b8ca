# kernels.h for Cython: the comments are there.

cdef extern from "kernels.h" nogil:
    ctypedef Py_ssize_t isize
    enum: RNN_TANH
    enum: RNN_RELU
    enum: LSTM
    enum: GRU
    enum: GRU_BEFORE
    enum: SIGMOID
    enum: TANH
    enum: RELU
    enum: AFFINE
    enum: LEAKY_RELU
    enum: THRESHOLDED_RELU
    enum: SCALED_TANH
    enum: HARD_SIGMOID
    enum: ELU
    enum: SOFTSIGN
    enum: SOFTPLUS

    ctypedef struct activation:
        int function
        double alpha, beta

    ctypedef struct matrix:
        const void* data
        isize panels, width, outer, depth

    ctypedef struct cell:
        int kind
        isize input, hidden, state, units, state_units, saved, deltas
        matrix w_ih, w_hh, w_hn, w_hr, w_ih_t, w_hh_t, w_hn_t, w_hr_t
        const void* bias
        const void* bias_n
        bint plain
        activation f, g, h
        double clip
        bint coupled, mirror
        const void* peephole

    ctypedef struct poll_state:
        int cancelled
        double next
        int (*look)(poll_state*) noexcept nogil
        unsigned long thread
        unsigned long long mode

    ctypedef struct run:
        const cell* c
        isize T, N, n0, n1
        const isize* lengths
        const unsigned char* reset
        isize rows
        bint packed
        const void* x
        isize x_t, x_n
        void* y
        void* y_c
        isize y_t, y_n, yc_t, yc_n
        const isize* y_rows
        const isize* yc_rows
        const isize* dy_rows
        void* h
        void* c_state
        void* h_n
        void* c_n
        int keep
        void* gates
        void* extra
        void* scratch
        int turn
        isize chunk
        const void* dy
        isize dy_t, dy_n
        void* dh
        void* dc
        void* dgates
        void* dstate
        void* dpeephole
        poll_state* poll
        isize work

    ctypedef struct outer_product:
        const void* left
        isize left_step
        const void* right
        isize right_step, right_panel
        isize rows, depth, width, p0, p1
        void* out
        void* bias
        poll_state* poll
        isize work

    ctypedef struct product:
        const matrix* w
        const void* left
        isize left_row, left_outer
        void* out
        isize out_row, columns, m0, m1
        const void* bias
        poll_state* poll
        isize work

    enum: SGD
    enum: RMSPROP
    enum: ADAM

    ctypedef struct update_numbers:
        double rate, decay, shrink, momentum, fresh, fresh_square, eps, scale
        bint nesterov

    ctypedef struct update_rule:
        int rule
        update_numbers by
        isize n
        const void* p
        const void* g
        void* out
        void* first
        void* second
        void* third

    ctypedef struct kernel_table:
        isize vlen, itemsize
        int (*forward)(run*) noexcept nogil
        int (*backward)(run*) noexcept nogil
        int (*accumulate)(outer_product*) noexcept nogil
        int (*multiply)(product*) noexcept nogil
        isize (*plan)(run*) noexcept nogil
        void (*read)(const void*, isize) noexcept nogil
        void (*tanh)(void*, const void*, isize) noexcept nogil
        void (*sigmoid)(void*, const void*, isize) noexcept nogil
        int (*update)(update_rule*) noexcept nogil
        double (*squares)(const void*, isize) noexcept nogil
        void (*pack)(void*, const void*, isize, isize, isize, isize, const int*, isize, isize,
                     isize) noexcept nogil
        void (*unpack)(void*, const void*, isize, isize, isize, isize, const int*, isize, isize,
                       isize) noexcept nogil
        void (*pack_t)(void*, const void*, isize, isize, isize, isize, const int*, isize, isize, isize,
                       isize) noexcept nogil

cdef extern from "machine.h" nogil:
    bint should_stop(poll_state* p)
    double clock_seconds()
