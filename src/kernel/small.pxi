# One row of a small plain cell, at most four panels of units: a loop over the steps with the sums, c and the weights'
# addresses in registers. At these sizes the general pass spends more on finding its rows than on the arithmetic.
#
# Where the registers suffice, the sums of x are taken one step ahead, between the recurrent sums and the activations:
# they do not depend on h, and fill the time for which these wait for each other. Else they are taken within the step
# or, of long inputs, many steps at once by the tile. Each sum has the general pass's order: bias, x's k, h's k.
#
# U, the vectors of units, is a constant once an instance below is compiled, so that the loops over units unroll whole.
#
# Uses forward_args, packed_cell, matrix (structs), input_sums, store_output, state_width, unit_width (forward),
# should_stop_after (kernels), vf and its functions (declarations).

cdef enum: SMALL = 4            # vectors of units

# Where one row walks: its place in the arguments' arrays.
cdef struct small_walk:
    const real* x
    real* y                     # NULL in a stream
    isize x_t, y_t
    isize T, H
    isize vectors               # vector operations of a step
    const real* h               # the state before the step, read number by number: the initial one, then h_n's
    real* h_n


# Whether a pass is one that this file does: one row without lengths, resets or anything to be kept.
cdef inline bint is_small(const forward_args* args) noexcept nogil:
    cdef const layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    return (run.n1 - run.n0 == 1 and cell.plain and cell.units <= SMALL and cell.w_hr.data == NULL
            and cell.kind != GRU_BEFORE and not run.keep and run.lengths == NULL and run.reset == NULL
            and args.y_c == NULL)


# sums[i] += the products of the numbers v with panels u0..u0+U of w, `count` vectors each.
cdef inline void add_products(vf* sums, const matrix* w, const real* v, isize u0, const int U,
                              const int count) noexcept nogil:
    cdef isize k, panel = w.depth * count * VLEN
    cdef const real* row = <const real*>w.data + u0 * panel
    cdef int u, i
    cdef vf number
    for k in range(w.depth):
        number = vset(v[k])
        for u in range(U):
            for i in range(count):
                sums[u * count + i] = vfma(vload(row + u * panel + i * VLEN), number, sums[u * count + i])
        row += count * VLEN


# The sums of x of one step: bias, then x's k in order.
cdef inline void input_products(const packed_cell* cell, vf* sums, const real* x, isize u0, const int U,
                                const int count) noexcept nogil:
    cdef int i
    for i in range(U * count):
        sums[i] = vload(<const real*>cell.bias + (u0 * count + i) * VLEN)
    add_products(sums, &cell.w_ih, x, u0, U, count)


# Takes the sums of x of step t + 1 ahead, where the registers suffice.
cdef inline void sum_ahead(const packed_cell* cell, small_walk* walk, isize t, vf* ahead, const int U,
                           const int count) noexcept nogil:
    if U <= SMALL_AHEAD and t + 1 < walk.T:
        input_products(cell, ahead, walk.x + (t + 1) * walk.x_t, 0, U, count)


# All sums of step t of panels u0..u0+U. GRU: n_input takes the input's part of n, and b_hn its place.
cdef inline void group_sums(const forward_args* args, const small_walk* walk, isize t, vf* sums, vf* n_input,
                            const vf* ahead, isize u0, const int U, const int count, const bint fits) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef const real* source
    cdef int u, i
    if fits:
        for i in range(U * count):
            sums[i] = ahead[i]
    elif args.chunk == 0:
        input_products(cell, sums, walk.x + t * walk.x_t, u0, U, count)
    else:
        source = <const real*>args.run.scratch + (u0 * args.chunk + t % args.chunk) * count * VLEN
        for u in range(U):
            for i in range(count):
                sums[u * count + i] = vload(source + (u * args.chunk * count + i) * VLEN)
    if count == 3 and n_input != NULL:      # a plain RNN's panel may have 3 vectors, too
        for u in range(U):
            n_input[u] = sums[3 * u + 2]
            sums[3 * u + 2] = vload(<const real*>cell.bias_n + (u0 + u) * VLEN)
    add_products(sums, &cell.w_hh, walk.h, u0, U, count)


# The sums of a step of U panels. More than two are taken in pairs, and every other step backwards: it begins with the
# weights that the last one ended with, which L1 still holds where it cannot hold all.
cdef inline int step_sums(forward_args* args, const small_walk* walk, isize t, vf* sums, vf* n_input, const vf* ahead,
                          const int U, const int count) noexcept nogil:
    if should_stop_after(args.run.poll, &args.run.work, walk.vectors):
        return -1
    if U > SMALL_AHEAD and args.chunk > 0 and t % args.chunk == 0 and input_sums(args, t, min(args.chunk, walk.T - t)):
        return -1
    if U <= 2:
        group_sums(args, walk, t, sums, n_input, ahead, 0, U, count, U <= SMALL_AHEAD)
    elif (t + args.turn) & 1:
        group_sums(args, walk, t, sums + 2 * count, n_input + 2, ahead, 2, U - 2, count, False)
        group_sums(args, walk, t, sums, n_input, ahead, 0, 2, count, False)
    else:
        group_sums(args, walk, t, sums, n_input, ahead, 0, 2, count, False)
        group_sums(args, walk, t, sums + 2 * count, n_input + 2, ahead, 2, U - 2, count, False)
    return 0


# Writes a step's output. Rows of y that follow each other may be written past their end, where the next step's row will
# be written over it; the last rows, and others, may not.
cdef inline void small_output(small_walk* walk, isize t, const vf* h, const int U) noexcept nogil:
    cdef real* y = walk.y + t * walk.y_t
    cdef int u
    if walk.y == NULL:
        return
    if walk.H == U * VLEN or (walk.y_t == walk.H and (walk.T - 1 - t) * walk.H >= U * VLEN - walk.H):
        for u in range(U):
            vstore(y + u * VLEN, h[u])
    else:
        for u in range(U):
            store_output(y, h[u], u, walk.H)


cdef inline int small_lstm(forward_args* args, small_walk* walk, const int U) noexcept nogil:
    cdef vf[4 * SMALL] ahead, sums
    cdef vf[SMALL] c, h
    cdef vf i_complement, f, g, o_complement, m
    cdef isize t
    cdef int u
    cdef const packed_cell* cell = args.run.cell
    cdef real* c_row = <real*>args.run.c + args.run.n0 * unit_width(&args.run)
    for u in range(U):
        c[u] = vload(c_row + u * VLEN)
    sum_ahead(cell, walk, -1, ahead, U, 4)
    for t in range(walk.T):
        if step_sums(args, walk, t, sums, NULL, ahead, U, 4):
            return -1
        sum_ahead(cell, walk, t, ahead, U, 4)
        for u in range(U):
            i_complement = vsigmoid_complement(sums[4 * u])
            f = vsigmoid(sums[4 * u + 1])
            g = vtanh(sums[4 * u + 2])
            o_complement = vsigmoid_complement(sums[4 * u + 3])
            c[u] = vfma(f, c[u], vfma(-i_complement, g, g))
            m = vtanh(c[u])
            h[u] = vfma(-o_complement, m, m)
            vstore(walk.h_n + u * VLEN, h[u])
        walk.h = walk.h_n
        small_output(walk, t, h, U)
    c_row = <real*>args.c_n + args.run.n0 * unit_width(&args.run)
    for u in range(U):
        vstore(c_row + u * VLEN, c[u])
    return 0


cdef inline int small_gru(forward_args* args, small_walk* walk, const int U) noexcept nogil:
    cdef vf[3 * SMALL] ahead, sums
    cdef vf[SMALL] h, n_input
    cdef vf r, z, n
    cdef isize t
    cdef int u
    cdef const packed_cell* cell = args.run.cell
    for u in range(U):
        h[u] = vload(walk.h + u * VLEN)
    sum_ahead(cell, walk, -1, ahead, U, 3)
    for t in range(walk.T):
        if step_sums(args, walk, t, sums, n_input, ahead, U, 3):
            return -1
        sum_ahead(cell, walk, t, ahead, U, 3)
        for u in range(U):
            r = vsigmoid(sums[3 * u])
            z = vsigmoid(sums[3 * u + 1])
            n = vtanh(vfma(r, sums[3 * u + 2], n_input[u]))
            h[u] = vfma(z, h[u] - n, n)
            vstore(walk.h_n + u * VLEN, h[u])
        walk.h = walk.h_n
        small_output(walk, t, h, U)
    return 0


cdef inline int small_rnn(forward_args* args, small_walk* walk, const int U) noexcept nogil:
    cdef vf[SMALL] ahead, h
    cdef isize t
    cdef int u
    cdef const packed_cell* cell = args.run.cell
    cdef bint tanh = cell.kind == RNN_TANH
    sum_ahead(cell, walk, -1, ahead, 1, U)
    for t in range(walk.T):
        if step_sums(args, walk, t, h, NULL, ahead, 1, U):
            return -1
        sum_ahead(cell, walk, t, ahead, 1, U)
        for u in range(U):
            h[u] = vtanh(h[u]) if tanh else vrelu(h[u])
            vstore(walk.h_n + u * VLEN, h[u])
        walk.h = walk.h_n
        small_output(walk, t, h, U)
    return 0


# ---- Instances, one a line: small_<cell>_<vectors of units> ---------------------------------------

cdef int small_lstm_1(forward_args* args, small_walk* walk) noexcept nogil: return small_lstm(args, walk, 1)
cdef int small_lstm_2(forward_args* args, small_walk* walk) noexcept nogil: return small_lstm(args, walk, 2)
cdef int small_lstm_3(forward_args* args, small_walk* walk) noexcept nogil: return small_lstm(args, walk, 3)
cdef int small_lstm_4(forward_args* args, small_walk* walk) noexcept nogil: return small_lstm(args, walk, 4)
cdef int small_gru_1(forward_args* args, small_walk* walk) noexcept nogil: return small_gru(args, walk, 1)
cdef int small_gru_2(forward_args* args, small_walk* walk) noexcept nogil: return small_gru(args, walk, 2)
cdef int small_gru_3(forward_args* args, small_walk* walk) noexcept nogil: return small_gru(args, walk, 3)
cdef int small_gru_4(forward_args* args, small_walk* walk) noexcept nogil: return small_gru(args, walk, 4)
cdef int small_rnn_1(forward_args* args, small_walk* walk) noexcept nogil: return small_rnn(args, walk, 1)
cdef int small_rnn_2(forward_args* args, small_walk* walk) noexcept nogil: return small_rnn(args, walk, 2)
cdef int small_rnn_3(forward_args* args, small_walk* walk) noexcept nogil: return small_rnn(args, walk, 3)
cdef int small_rnn_4(forward_args* args, small_walk* walk) noexcept nogil: return small_rnn(args, walk, 4)

ctypedef int (*small_function)(forward_args*, small_walk*) noexcept nogil

cdef small_function[4][SMALL + 1] SMALL_CELLS       # [kind][vectors of units]
SMALL_CELLS[RNN_TANH] = [NULL, small_rnn_1, small_rnn_2, small_rnn_3, small_rnn_4]
SMALL_CELLS[RNN_RELU] = [NULL, small_rnn_1, small_rnn_2, small_rnn_3, small_rnn_4]
SMALL_CELLS[LSTM] = [NULL, small_lstm_1, small_lstm_2, small_lstm_3, small_lstm_4]
SMALL_CELLS[GRU] = [NULL, small_gru_1, small_gru_2, small_gru_3, small_gru_4]


# A whole pass of one row. h_n and c_n are written, h and c only read.
cdef int forward_small(forward_args* args) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize row = run.n0 * state_width(run)
    cdef small_walk walk
    if run.T == 0:
        return 0
    walk.x, walk.x_t = <const real*>args.x + run.n0 * args.x_n, args.x_t
    walk.y = NULL if args.y == NULL else <real*>args.y + run.n0 * args.y_n
    walk.y_t, walk.T, walk.H = args.y_t, run.T, cell.state
    walk.vectors = cell.w_ih.panels * cell.w_ih.width * (cell.input + cell.state)
    walk.h, walk.h_n = <const real*>run.h + row, <real*>args.h_n + row
    return SMALL_CELLS[cell.kind][cell.units](args, &walk)
