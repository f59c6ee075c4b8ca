# kernels.h as Cython sees it: shapes, owners and aliasing of every field are said there. Uses nothing.

cdef extern from "kernels.h" nogil:
    ctypedef Py_ssize_t isize
    void CHECK(bint condition)
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
        isize panels, width, vectors, outer, depth, last
        const void* scale
        const void* offset
        const void* column
        bint fast

    ctypedef struct packed_cell:
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
        long long cancelled
        double next
        int (*look)(poll_state*) noexcept nogil
        unsigned long thread
        unsigned long long mode

    ctypedef struct team_part:
        long long taken, finished

    ctypedef struct team_member:
        team* team
        isize index
        long long phase, took, did
        double waits_since
        long long long_phase
        double long_began

    ctypedef struct team:
        isize parts
        team_part* part
        poll_state* poll
        double start
        int (*wait_longer)(team_member*) noexcept nogil
        void (*end_wait)(team_member*) noexcept nogil
        long long trial, alone, closed
        isize kind
        double work, began, alone_best, team_phases, team_total, team_longest

    ctypedef struct layer_run:
        const packed_cell* cell
        isize T, N, n0, n1, rows
        const isize* lengths
        const unsigned char* reset
        bint packed, keep
        void* h
        void* c
        void* gates
        void* extra
        void* scratch
        team_member* member
        bint pairs
        poll_state* poll
        isize work

    ctypedef struct forward_args:
        layer_run run
        const void* x
        isize x_t, x_n
        void* y
        isize y_t, y_n
        const isize* y_rows
        void* y_c
        isize yc_t, yc_n
        const isize* yc_rows
        void* h_n
        void* c_n
        isize chunk
        int turn

    ctypedef struct backward_args:
        layer_run run
        const void* dy
        isize dy_t, dy_n
        const isize* dy_rows
        void* dh
        void* dc
        void* dgates
        void* dstate
        void* dpeephole

    ctypedef struct outer_product:
        const void* left
        isize left_step
        const void* right
        isize right_step, right_panel
        isize rows, depth, width, vectors, p0, p1
        void* out
        void* bias
        void* scratch
        bint fast
        poll_state* poll
        isize work

    ctypedef struct product:
        const matrix* w
        const void* left
        isize left_row, left_outer
        void* out
        isize out_row, columns, m0, m1
        const void* bias
        void* scratch
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

    ctypedef void (*step_function)(const forward_args*) noexcept nogil

    ctypedef int (*task_function)(void*) noexcept nogil
    ctypedef struct kernel_table:
        isize vlen, itemsize, weight_size, group
        bint has_dot, fast
        bint teams
        task_function forward
        step_function (*small_step)(const packed_cell*) noexcept nogil
        task_function backward
        isize (*plan_forward)(forward_args*) noexcept nogil
        isize (*plan_backward)(backward_args*) noexcept nogil
        int (*accumulate)(outer_product*) noexcept nogil
        isize (*plan_accumulate)(const outer_product*) noexcept nogil
        task_function multiply
        isize (*plan_multiply)(const matrix*) noexcept nogil
        void (*read)(const void*, isize) noexcept nogil
        void (*tanh)(void*, const void*, isize) noexcept nogil
        void (*sigmoid)(void*, const void*, isize) noexcept nogil
        task_function update
        double (*squares)(const void*, isize) noexcept nogil
        void (*pack)(void*, const void*, isize, isize, isize, isize, isize, const int*, isize, isize,
                     isize) noexcept nogil
        void (*pack_weights)(void*, const void*, isize, isize, isize, isize, isize, const int*, isize, isize,
                             isize) noexcept nogil
        void (*unpack)(void*, const void*, isize, isize, isize, const int*, isize, isize, isize) noexcept nogil
        void (*pack_t)(void*, const void*, isize, isize, isize, isize, isize, isize, const int*, isize, isize, isize,
                       isize) noexcept nogil

cdef extern from "team.h" nogil:
    enum: PHASE_OVER
    long long atomic_get(const long long*)
    void atomic_release(long long*, long long)
    long long atomic_swap(long long*, long long)
    bint atomic_change(long long*, long long, long long)
    void pause_cpu()
    isize first_part(team_member*)
    isize next_part(team_member*, isize)
    isize parts_of(const team_member*)

cdef extern from "machine.h" nogil:
    bint should_stop(poll_state* p)
    double clock_seconds()
