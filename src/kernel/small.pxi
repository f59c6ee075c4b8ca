# One row of a small plain cell, at most four panels of units: a loop over the steps, or one step alone for a stream,
# with the sums and the weights' addresses in registers. At these sizes the general pass spends more on finding its rows
# than on the arithmetic.
#
# Panels are summed in groups side by side, and a group's cells follow while the processor already reads the weights of
# the next group. Where the registers suffice (SMALL_AHEAD), all panels are one group, and in a sequence the sums of x
# are taken one step ahead, between the recurrent sums and the activations: they do not depend on h, and fill the time
# for which these wait for each other. Else they are taken within the step or, of long inputs, many steps at once by the
# tile. Each sum has the general pass's order: bias, x's k, h's k.
#
# U, the vectors of units, and the size of a group are constants once an instance below is compiled, so that the loops
# over units unroll whole. A group is a function of its own, because GCC keeps its sums in registers then.
#
# Uses forward_args, packed_cell, matrix, step_function (structs), input_sums, store_output, state_width, unit_width
# (forward), should_stop_after (kernels), vf and its functions (declarations).

cdef enum: SMALL = 4            # vectors of units

# Where a step reads and writes.
cdef struct small_row:
    const packed_cell* cell
    const real* x
    const real* input_sums      # W_ih x + b of this step, panels input_panel apart; NULL: not computed ahead
    isize input_panel
    const real* h               # the state before the step
    const real* c
    real* c_n                   # the new c; may be c
    bint backwards              # the last group of panels comes first

# Where one row walks: its place in the arguments' arrays.
cdef struct small_walk:
    const real* x
    real* y                     # NULL in a stream
    isize x_t, y_t
    isize T, H
    isize vectors               # vector operations of a step
    real* h_n


cdef inline bint is_small_cell(const packed_cell* cell) noexcept nogil:
    return cell.plain and cell.units <= SMALL and cell.w_hr.data == NULL and cell.kind != GRU_BEFORE


# Whether a pass is one that this file does: one row without lengths, resets or anything to be kept.
cdef inline bint is_small(const forward_args* args) noexcept nogil:
    cdef const layer_run* run = &args.run
    return (run.n1 - run.n0 == 1 and is_small_cell(run.cell) and not run.keep and run.lengths == NULL
            and run.reset == NULL and args.y_c == NULL)


# ---- A group of panels ---------------------------------------------------------------------------

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
        sums[i] = compute_now(vload(<const real*>cell.bias + (u0 * count + i) * VLEN))      # else GCC calls memcpy
    add_products(sums, &cell.w_ih, x, u0, U, count)


# The sums of panels u0..u0+group; `alone`: of a step that is no part of a sequence. GRU: n_input takes the input's part
# of n, and b_hn its place.
cdef inline void group_sums(const small_row* row, vf* sums, vf* n_input, isize u0, const int group, const int count,
                            const bint alone) noexcept nogil:
    cdef int u, i
    if alone or row.input_sums == NULL:
        input_products(row.cell, sums, row.x, u0, group, count)
    else:
        for u in range(group):
            for i in range(count):
                sums[u * count + i] = vload(row.input_sums + (u0 + u) * row.input_panel + i * VLEN)
    recurrent_products(row, sums, n_input, u0, group, count)


cdef inline void recurrent_products(const small_row* row, vf* sums, vf* n_input, isize u0, const int group,
                                    const int count) noexcept nogil:
    cdef int u
    if n_input != NULL:
        for u in range(group):
            n_input[u] = sums[3 * u + 2]
            sums[3 * u + 2] = vload(<const real*>row.cell.bias_n + (u0 + u) * VLEN)
    add_products(sums, &row.cell.w_hh, row.h, u0, group, count)


# The cells of a group. First all gates, then all states: the processor looks only some hundred operations ahead, and
# would otherwise wait for one panel's state before it comes to the next one's gates.
cdef inline void lstm_units(const small_row* row, const vf* sums, vf* h, isize u0, const int group) noexcept nogil:
    cdef vf[SMALL] i_complement, f, g, o_complement
    cdef vf c, m
    cdef int u
    for u in range(group):
        g[u] = compute_now(vtanh(sums[4 * u + 2]))
        i_complement[u] = compute_now(vsigmoid_complement(sums[4 * u]))
        f[u] = compute_now(vsigmoid(sums[4 * u + 1]))
        o_complement[u] = compute_now(vsigmoid_complement(sums[4 * u + 3]))
    for u in range(group):
        c = vfma(f[u], vload(row.c + (u0 + u) * VLEN), vfma(-i_complement[u], g[u], g[u]))
        vstore(row.c_n + (u0 + u) * VLEN, c)
        m = vtanh(c)
        h[u0 + u] = vfma(-o_complement[u], m, m)


cdef inline void gru_units(const small_row* row, const vf* sums, const vf* n_input, vf* h, isize u0,
                           const int group) noexcept nogil:
    cdef vf[SMALL] r, z
    cdef vf n
    cdef int u
    for u in range(group):
        r[u] = compute_now(vsigmoid(sums[3 * u]))
    for u in range(group):
        z[u] = compute_now(vsigmoid(sums[3 * u + 1]))
    for u in range(group):
        n = vtanh(vfma(r[u], sums[3 * u + 2], n_input[u]))
        h[u0 + u] = vfma(z[u], vload(row.h + (u0 + u) * VLEN) - n, n)


cdef inline void lstm_group(const small_row* row, vf* h, isize u0, const int group, const bint alone) noexcept nogil:
    cdef vf[4 * SMALL] sums
    group_sums(row, sums, NULL, u0, group, 4, alone)
    lstm_units(row, sums, h, u0, group)


cdef inline void gru_group(const small_row* row, vf* h, isize u0, const int group, const bint alone) noexcept nogil:
    cdef vf[3 * SMALL] sums
    cdef vf[SMALL] n_input
    group_sums(row, sums, n_input, u0, group, 3, alone)
    gru_units(row, sums, n_input, h, u0, group)


# Every other step takes the groups backwards: it begins with the weights that the last one ended with, which L1 still
# holds where it cannot hold all.
cdef inline void lstm_groups(const small_row* row, vf* h, const int U, const int group,
                             const bint alone) noexcept nogil:
    cdef int i
    for i in range(U // group):
        lstm_group(row, h, (U // group - 1 - i if row.backwards else i) * group, group, alone)


cdef inline void gru_groups(const small_row* row, vf* h, const int U, const int group,
                            const bint alone) noexcept nogil:
    cdef int i
    for i in range(U // group):
        gru_group(row, h, (U // group - 1 - i if row.backwards else i) * group, group, alone)


cdef inline void rnn_units(const small_row* row, vf* h, const int U) noexcept nogil:
    cdef int u
    cdef bint tanh = row.cell.kind == RNN_TANH
    for u in range(U):
        h[u] = vtanh(h[u]) if tanh else vrelu(h[u])


# ---- One step alone: the step of a stream --------------------------------------------------------

cdef inline small_row row_of_step(const forward_args* args) noexcept nogil:
    cdef small_row row
    row.cell, row.x, row.input_sums, row.input_panel = args.run.cell, <const real*>args.x, NULL, 0
    row.h, row.c, row.c_n = <const real*>args.run.h, <const real*>args.run.c, <real*>args.c_n
    row.backwards = args.turn
    return row


# Stores h to h_n and to the caller's y: after all sums, since y may overlap x.
cdef inline void store_step(const forward_args* args, const vf* h, const int U) noexcept nogil:
    cdef real* y = <real*>args.y
    cdef int u
    for u in range(U):
        vstore(<real*>args.h_n + u * VLEN, h[u])
    if y == NULL:
        return
    for u in range(U - 1):
        vstore(y + u * VLEN, h[u])
    vstore_part(y + (U - 1) * VLEN, h[U - 1], args.run.cell.state - (U - 1) * VLEN)


cdef inline void step_lstm(const forward_args* args, const int U, const int group) noexcept nogil:
    cdef vf[SMALL] h
    cdef small_row row = row_of_step(args)
    lstm_groups(&row, h, U, group, True)
    store_step(args, h, U)


cdef inline void step_gru(const forward_args* args, const int U, const int group) noexcept nogil:
    cdef vf[SMALL] h
    cdef small_row row = row_of_step(args)
    gru_groups(&row, h, U, group, True)
    store_step(args, h, U)


cdef inline void step_rnn(const forward_args* args, const int U) noexcept nogil:
    cdef vf[SMALL] h
    cdef small_row row = row_of_step(args)
    group_sums(&row, h, NULL, 0, 1, U, True)
    rnn_units(&row, h, U)
    store_step(args, h, U)


# ---- A sequence ----------------------------------------------------------------------------------

# The row before its first step. h_n and c_n are written, h and c only read.
cdef inline small_row begin_row(const forward_args* args, const small_walk* walk) noexcept nogil:
    cdef small_row row
    cdef isize units = args.run.n0 * unit_width(&args.run)
    row.cell, row.x, row.input_sums = args.run.cell, walk.x, NULL
    row.input_panel = args.chunk * row.cell.w_ih.width * VLEN
    row.h = <const real*>args.run.h + args.run.n0 * state_width(&args.run)
    row.c, row.c_n = <const real*>args.run.c + units, <real*>args.c_n + units
    return row


# Brings the row to step t; -1 when cancelled.
cdef inline int begin_step(forward_args* args, const small_walk* walk, small_row* row, isize t,
                           const int panels) noexcept nogil:
    if should_stop_after(args.run.poll, &args.run.work, walk.vectors):
        return -1
    row.x, row.backwards = walk.x + t * walk.x_t, (t + args.turn) & 1
    if panels > SMALL_AHEAD and args.chunk > 0:
        if t % args.chunk == 0 and input_sums(args, t, min(args.chunk, walk.T - t)):
            return -1
        row.input_sums = <const real*>args.run.scratch + t % args.chunk * row.cell.w_ih.width * VLEN
    return 0


# Takes the sums of x of step t + 1 ahead.
cdef inline void sum_ahead(const small_row* row, const small_walk* walk, isize t, vf* ahead, const int U,
                           const int count) noexcept nogil:
    if t + 1 < walk.T:
        input_products(row.cell, ahead, walk.x + (t + 1) * walk.x_t, 0, U, count)


# Ends step t: stores h to h_n and to y. Rows of y that follow each other may be written past their end, where the next
# step's row will be written over it; the last rows, and others, may not.
cdef inline void end_step(const small_walk* walk, small_row* row, isize t, const vf* h, const int U) noexcept nogil:
    cdef real* y = walk.y + t * walk.y_t
    cdef int u
    for u in range(U):
        vstore(walk.h_n + u * VLEN, h[u])
    row.h, row.c = walk.h_n, row.c_n
    if walk.y == NULL:
        return
    if walk.H == U * VLEN or (walk.y_t == walk.H and (walk.T - 1 - t) * walk.H >= U * VLEN - walk.H):
        for u in range(U):
            vstore(y + u * VLEN, h[u])
    else:
        for u in range(U):
            store_output(y, h[u], u, walk.H)


# Step t of a row whose sums of x were taken ahead.
cdef inline void lstm_ahead(const small_row* row, const small_walk* walk, isize t, vf* ahead, vf* h,
                            const int U) noexcept nogil:
    cdef vf[4 * SMALL] sums
    cdef int i
    for i in range(4 * U):
        sums[i] = ahead[i]
    recurrent_products(row, sums, NULL, 0, U, 4)
    sum_ahead(row, walk, t, ahead, U, 4)
    lstm_units(row, sums, h, 0, U)


cdef inline void gru_ahead(const small_row* row, const small_walk* walk, isize t, vf* ahead, vf* h,
                           const int U) noexcept nogil:
    cdef vf[3 * SMALL] sums
    cdef vf[SMALL] n_input
    cdef int i
    for i in range(3 * U):
        sums[i] = ahead[i]
    recurrent_products(row, sums, n_input, 0, U, 3)
    sum_ahead(row, walk, t, ahead, U, 3)
    gru_units(row, sums, n_input, h, 0, U)


cdef inline int small_lstm(forward_args* args, const small_walk* walk, const int U, const int group) noexcept nogil:
    cdef vf[4 * SMALL] ahead
    cdef vf[SMALL] h
    cdef small_row row = begin_row(args, walk)
    cdef isize t
    if U <= SMALL_AHEAD:
        sum_ahead(&row, walk, -1, ahead, U, 4)
    for t in range(walk.T):
        if begin_step(args, walk, &row, t, U):
            return -1
        if U <= SMALL_AHEAD:
            lstm_ahead(&row, walk, t, ahead, h, U)
        else:
            lstm_groups(&row, h, U, group, False)
        end_step(walk, &row, t, h, U)
    return 0


cdef inline int small_gru(forward_args* args, const small_walk* walk, const int U, const int group) noexcept nogil:
    cdef vf[3 * SMALL] ahead
    cdef vf[SMALL] h
    cdef small_row row = begin_row(args, walk)
    cdef isize t
    if U <= SMALL_AHEAD:
        sum_ahead(&row, walk, -1, ahead, U, 3)
    for t in range(walk.T):
        if begin_step(args, walk, &row, t, U):
            return -1
        if U <= SMALL_AHEAD:
            gru_ahead(&row, walk, t, ahead, h, U)
        else:
            gru_groups(&row, h, U, group, False)
        end_step(walk, &row, t, h, U)
    return 0


# A plain RNN's units are one panel.
cdef inline int small_rnn(forward_args* args, const small_walk* walk, const int U) noexcept nogil:
    cdef vf[SMALL] ahead, h
    cdef small_row row = begin_row(args, walk)
    cdef isize t
    cdef int u
    sum_ahead(&row, walk, -1, ahead, 1, U)
    for t in range(walk.T):
        if begin_step(args, walk, &row, t, 1):
            return -1
        for u in range(U):
            h[u] = ahead[u]
        recurrent_products(&row, h, NULL, 0, 1, U)
        sum_ahead(&row, walk, t, ahead, 1, U)
        rnn_units(&row, h, U)
        end_step(walk, &row, t, h, U)
    return 0


# ---- Instances, one a line: <what>_<cell>_<vectors of units> --------------------------------------

cdef int small_lstm_1(forward_args* a, const small_walk* walk) noexcept nogil: return small_lstm(a, walk, 1, 1)
cdef int small_lstm_2(forward_args* a, const small_walk* walk) noexcept nogil: return small_lstm(a, walk, 2, 2)
cdef int small_lstm_3(forward_args* a, const small_walk* walk) noexcept nogil: return small_lstm(a, walk, 3, GROUP3)
cdef int small_lstm_4(forward_args* a, const small_walk* walk) noexcept nogil: return small_lstm(a, walk, 4, GROUP4)
cdef int small_gru_1(forward_args* a, const small_walk* walk) noexcept nogil: return small_gru(a, walk, 1, 1)
cdef int small_gru_2(forward_args* a, const small_walk* walk) noexcept nogil: return small_gru(a, walk, 2, 2)
cdef int small_gru_3(forward_args* a, const small_walk* walk) noexcept nogil: return small_gru(a, walk, 3, GROUP3)
cdef int small_gru_4(forward_args* a, const small_walk* walk) noexcept nogil: return small_gru(a, walk, 4, GROUP4)
cdef int small_rnn_1(forward_args* a, const small_walk* walk) noexcept nogil: return small_rnn(a, walk, 1)
cdef int small_rnn_2(forward_args* a, const small_walk* walk) noexcept nogil: return small_rnn(a, walk, 2)
cdef int small_rnn_3(forward_args* a, const small_walk* walk) noexcept nogil: return small_rnn(a, walk, 3)
cdef int small_rnn_4(forward_args* a, const small_walk* walk) noexcept nogil: return small_rnn(a, walk, 4)
cdef void step_lstm_1(const forward_args* args) noexcept nogil: step_lstm(args, 1, 1)
cdef void step_lstm_2(const forward_args* args) noexcept nogil: step_lstm(args, 2, 2)
cdef void step_lstm_3(const forward_args* args) noexcept nogil: step_lstm(args, 3, GROUP3)
cdef void step_lstm_4(const forward_args* args) noexcept nogil: step_lstm(args, 4, GROUP4)
cdef void step_gru_1(const forward_args* args) noexcept nogil: step_gru(args, 1, 1)
cdef void step_gru_2(const forward_args* args) noexcept nogil: step_gru(args, 2, 2)
cdef void step_gru_3(const forward_args* args) noexcept nogil: step_gru(args, 3, GROUP3)
cdef void step_gru_4(const forward_args* args) noexcept nogil: step_gru(args, 4, GROUP4)
cdef void step_rnn_1(const forward_args* args) noexcept nogil: step_rnn(args, 1)
cdef void step_rnn_2(const forward_args* args) noexcept nogil: step_rnn(args, 2)
cdef void step_rnn_3(const forward_args* args) noexcept nogil: step_rnn(args, 3)
cdef void step_rnn_4(const forward_args* args) noexcept nogil: step_rnn(args, 4)

ctypedef int (*small_function)(forward_args*, const small_walk*) noexcept nogil

cdef small_function[4][SMALL + 1] SMALL_CELLS       # [kind][vectors of units]
SMALL_CELLS[RNN_TANH] = [NULL, small_rnn_1, small_rnn_2, small_rnn_3, small_rnn_4]
SMALL_CELLS[RNN_RELU] = [NULL, small_rnn_1, small_rnn_2, small_rnn_3, small_rnn_4]
SMALL_CELLS[LSTM] = [NULL, small_lstm_1, small_lstm_2, small_lstm_3, small_lstm_4]
SMALL_CELLS[GRU] = [NULL, small_gru_1, small_gru_2, small_gru_3, small_gru_4]

cdef step_function[4][SMALL + 1] SMALL_STEPS        # [kind][vectors of units]
SMALL_STEPS[RNN_TANH] = [NULL, step_rnn_1, step_rnn_2, step_rnn_3, step_rnn_4]
SMALL_STEPS[RNN_RELU] = [NULL, step_rnn_1, step_rnn_2, step_rnn_3, step_rnn_4]
SMALL_STEPS[LSTM] = [NULL, step_lstm_1, step_lstm_2, step_lstm_3, step_lstm_4]
SMALL_STEPS[GRU] = [NULL, step_gru_1, step_gru_2, step_gru_3, step_gru_4]


# The step of a cell of one row; NULL where it is none of this file's.
cdef step_function small_step(const packed_cell* cell) noexcept nogil:
    return SMALL_STEPS[cell.kind][cell.units] if is_small_cell(cell) else NULL


# A whole pass of one row. h_n and c_n are written, h and c only read.
cdef int forward_small(forward_args* args) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef small_walk walk
    if run.T == 0:
        return 0
    walk.x, walk.x_t = <const real*>args.x + run.n0 * args.x_n, args.x_t
    walk.y = NULL if args.y == NULL else <real*>args.y + run.n0 * args.y_n
    walk.y_t, walk.T, walk.H = args.y_t, run.T, cell.state
    walk.vectors = cell.w_ih.panels * cell.w_ih.width * (cell.input + cell.state)
    walk.h_n = <real*>args.h_n + run.n0 * state_width(run)
    return SMALL_CELLS[cell.kind][cell.units](args, &walk)
