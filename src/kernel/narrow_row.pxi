# One row of a plain int8 cell: for every panel of units the sums of x and h and on them, still in registers, the cell.
# While a panel's cell waits for its own results, the processor already reads the weights of the next panel.
#
# A small cell goes through a step, or the steps of a sequence, without looking for rows, as in small.pxi. The sums are
# those of the general pass: whole numbers, and each output's two products are added to its bias in the same order.
#
# Uses narrow_rows, quantise_rows, integer_product, dot and what goes with it (integer_tile), small_row, lstm_units
# (small), forward_args, packed_cell, matrix, step_function (structs), store_output, state_width, unit_width (forward).

# Where one row reads and writes in one step. The row's numbers may be taken from x and h before anything is written.
cdef struct narrow_step_row:
    small_row at                # cell, input_sums, c, c_n, and h: the state before the step, in float
    const signed char* x        # quantised; unused where at.input_sums are given
    const signed char* h
    real x_scale, h_scale
    vf* h_n                     # the state after it; may be h
    real* y                     # or NULL


# ---- Sums ----------------------------------------------------------------------------------------

# sums[q] += (sum over k of w[k][q] v[k]) scale w_scale[q] for panel p of w: as dot_panel.
cdef inline void add_dots(vf* sums, const matrix* w, isize p, const signed char* v, real scale, const int P,
                          const int chains, const int fast) noexcept nogil:
    cdef dot_acc acc[8][4]
    cdef dot_x x
    cdef vi total
    cdef isize k, groups = (w.depth + GROUP - 1) // GROUP, at = p * P * VLEN
    cdef int q, c
    cdef const signed char* weights = <const signed char*>w.data + groups * at * GROUP
    for q in range(P):
        acc[0][q] = dot_start(<const int*>w.offset + at + q * VLEN)
        for c in range(1, chains):
            acc[c][q] = dot_zero()
    for k in range(groups // chains):
        for c in range(chains):
            x = dot_spread(v + c * GROUP)
            for q in range(P):
                acc[c][q] = dot(acc[c][q], dot_weights(weights + (c * P + q) * VLEN * GROUP), x, fast)
        weights += chains * P * VLEN * GROUP
        v += chains * GROUP
    for k in range(groups % chains):
        x = dot_spread(v)
        for q in range(P):
            acc[0][q] = dot(acc[0][q], dot_weights(weights + q * VLEN * GROUP), x, fast)
        weights += P * VLEN * GROUP
        v += GROUP
    for q in range(P):
        total = dot_sums(acc[0][q])
        for c in range(1, chains):
            total = vi_add(total, dot_sums(acc[c][q]))
        sums[q] = vfma(from_ints(total) * vset(scale), vload(<const real*>w.scale + at + q * VLEN), sums[q])


# The same of a row with infinite numbers, for which the tile has a way of its own.
cdef void add_infinite(vf* sums, const matrix* w, isize p, const signed char* v, real scale) noexcept nogil:
    cdef vf[4] start
    cdef narrow_rows rows
    cdef isize q
    for q in range(w.width):
        start[q] = sums[q]
    rows.data, rows.row, rows.scale = <signed char*>v, 0, &scale
    integer_product(w, p, &rows, 0, <const real*>start, 0, <real*>sums, w.width * VLEN, 1)


cdef inline void add_row(vf* sums, const matrix* w, isize p, const signed char* v, real scale, const int P,
                         const int chains, const int fast) noexcept nogil:
    cdef vf[4] infinite
    cdef int q
    if scale == INFINITY:
        for q in range(P):          # sums themselves stay in registers
            infinite[q] = sums[q]
        add_infinite(infinite, w, p, v, scale)
        for q in range(P):
            sums[q] = infinite[q]
    else:
        add_dots(sums, w, p, v, scale, P, chains, fast)


# The sums of panel p. GRU: n_input takes the input's part of n, and b_hn its place.
cdef inline void row_sums(const narrow_step_row* row, vf* sums, vf* n_input, isize p, const int P, const int chains,
                          const int fast) noexcept nogil:
    cdef const packed_cell* cell = row.at.cell
    cdef int q
    if row.at.input_sums != NULL:
        for q in range(P):
            sums[q] = vload(row.at.input_sums + p * row.at.input_panel + q * VLEN)
    else:
        for q in range(P):
            sums[q] = vload(<const real*>cell.bias + (p * P + q) * VLEN)
        add_row(sums, &cell.w_ih, p, row.x, row.x_scale, P, chains, fast)
    if n_input != NULL:
        n_input[0] = sums[2]
        sums[2] = vload(<const real*>cell.bias_n + p * VLEN)
    add_row(sums, &cell.w_hh, p, row.h, row.h_scale, P, chains, fast)


# ---- Panels p0..p1 of one step -------------------------------------------------------------------

cdef inline void store_row_output(const narrow_step_row* row, isize unit) noexcept nogil:
    if row.y != NULL:
        store_output(row.y, row.h_n[unit], unit, row.at.cell.state)


# Panels p..p+group, whose cells follow the sums of all of them.
cdef inline void lstm_panel_group(const narrow_step_row* row, isize p, const int group, const int fast) noexcept nogil:
    cdef vf[8] sums
    cdef int u
    for u in range(group):
        row_sums(row, sums + 4 * u, NULL, p + u, 4, 2, fast)
    lstm_units(&row.at, sums, row.h_n, p, group)
    for u in range(group):
        store_row_output(row, p + u)


cdef inline void gru_panel_group(const narrow_step_row* row, isize p, const int group, const int fast) noexcept nogil:
    cdef vf[6] sums
    cdef vf[2] n_input
    cdef int u
    for u in range(group):
        row_sums(row, sums + 3 * u, n_input + u, p + u, 3, 3, fast)
    gru_units(&row.at, sums, n_input, row.h_n, p, group)
    for u in range(group):
        store_row_output(row, p + u)


cdef inline void lstm_panels(const narrow_step_row* row, isize p0, isize p1, const int fast) noexcept nogil:
    cdef isize i
    if p1 - p0 == 2:
        lstm_panel_group(row, p0, 2, fast)
        return
    for i in range(p1 - p0):
        lstm_panel_group(row, p1 - 1 - i if row.at.backwards else p0 + i, 1, fast)


cdef inline void gru_panels(const narrow_step_row* row, isize p0, isize p1, const int fast) noexcept nogil:
    cdef isize i
    if p1 - p0 == 2:
        gru_panel_group(row, p0, 2, fast)
        return
    for i in range(p1 - p0):
        gru_panel_group(row, p1 - 1 - i if row.at.backwards else p0 + i, 1, fast)


cdef inline void rnn_panels(const narrow_step_row* row, isize p0, isize p1, const int P, const int chains,
                            const int fast) noexcept nogil:
    cdef vf[4] sums
    cdef isize i, p
    cdef int u
    for i in range(p1 - p0):
        p = p1 - 1 - i if row.at.backwards else p0 + i
        row_sums(row, sums, NULL, p, P, chains, fast)
        rnn_units(&row.at, sums, P)
        for u in range(P):
            row.h_n[p * P + u] = sums[u]
            store_row_output(row, p * P + u)


# Instances, one a line: with the CPU's instruction for four products dot_<cell>, without it wide_<cell>.

cdef void dot_lstm(const narrow_step_row* row, isize a, isize b) noexcept nogil: lstm_panels(row, a, b, HAS_DOT)
cdef void dot_gru(const narrow_step_row* row, isize a, isize b) noexcept nogil: gru_panels(row, a, b, HAS_DOT)
cdef void dot_rnn_1(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 1, 8, HAS_DOT)
cdef void dot_rnn_2(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 2, 4, HAS_DOT)
cdef void dot_rnn_3(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 3, 3, HAS_DOT)
cdef void dot_rnn_4(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 4, 2, HAS_DOT)

cdef void wide_lstm(const narrow_step_row* row, isize a, isize b) noexcept nogil: lstm_panels(row, a, b, False)
cdef void wide_gru(const narrow_step_row* row, isize a, isize b) noexcept nogil: gru_panels(row, a, b, False)
cdef void wide_rnn_1(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 1, 8, False)
cdef void wide_rnn_2(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 2, 4, False)
cdef void wide_rnn_3(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 3, 3, False)
cdef void wide_rnn_4(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 4, 2, False)

ctypedef void (*row_function)(const narrow_step_row*, isize, isize) noexcept nogil

cdef row_function[4][5] DOT_CELLS, WIDE_CELLS       # [kind][vectors of a panel]
DOT_CELLS[RNN_TANH] = [NULL, dot_rnn_1, dot_rnn_2, dot_rnn_3, dot_rnn_4]
DOT_CELLS[RNN_RELU] = [NULL, dot_rnn_1, dot_rnn_2, dot_rnn_3, dot_rnn_4]
DOT_CELLS[LSTM] = [NULL, NULL, NULL, NULL, dot_lstm]
DOT_CELLS[GRU] = [NULL, NULL, NULL, dot_gru, NULL]
WIDE_CELLS[RNN_TANH] = [NULL, wide_rnn_1, wide_rnn_2, wide_rnn_3, wide_rnn_4]
WIDE_CELLS[RNN_RELU] = [NULL, wide_rnn_1, wide_rnn_2, wide_rnn_3, wide_rnn_4]
WIDE_CELLS[LSTM] = [NULL, NULL, NULL, NULL, wide_lstm]
WIDE_CELLS[GRU] = [NULL, NULL, NULL, wide_gru, NULL]


cdef inline bint is_plain_row_cell(const packed_cell* cell) noexcept nogil:
    return cell.plain and cell.w_hh.scale != NULL and cell.w_hr.data == NULL and cell.kind != GRU_BEFORE


cdef inline void step_panels(const narrow_step_row* row, isize p0, isize p1) noexcept nogil:
    cdef const packed_cell* cell = row.at.cell
    if HAS_DOT and cell.w_hh.fast:
        DOT_CELLS[cell.kind][cell.w_hh.width](row, p0, p1)
    else:
        WIDE_CELLS[cell.kind][cell.w_hh.width](row, p0, p1)


# Quantises h and, where its sums are not given, x; to memory for both.
cdef inline void quantise_step(narrow_step_row* row, signed char* x, signed char* h) noexcept nogil:
    cdef const packed_cell* cell = row.at.cell
    cdef narrow_rows rows
    row.x, row.h = x, h
    rows.row = 0
    if row.at.input_sums == NULL:
        rows.data, rows.scale = x, &row.x_scale
        quantise_rows(&cell.w_ih, row.at.x, 0, 1, &rows)
    rows.data, rows.scale = h, &row.h_scale
    quantise_rows(&cell.w_hh, row.at.h, 0, 1, &rows)


# ---- One step alone: the step of a stream --------------------------------------------------------

cdef enum: SMALL_STEP = 400000      # multiply-adds of a step that takes no longer than other calls that keep the GIL


# Scratch has room for the quantised x and h in this order, as place_part lays it out.
cdef void narrow_step_alone(const forward_args* args) noexcept nogil:
    cdef narrow_step_row row
    cdef signed char* x = <signed char*>args.run.scratch
    row.at = row_of_step(args)
    row.h_n, row.y = <vf*>args.h_n, <real*>args.y
    quantise_step(&row, x, x + quantised_row(row.at.cell.input))
    step_panels(&row, 0, row.at.cell.w_ih.panels)


cdef step_function narrow_small_step(const packed_cell* cell) noexcept nogil:
    cdef isize outputs = cell.w_ih.panels * cell.w_ih.width * VLEN
    if is_plain_row_cell(cell) and outputs * (cell.input + cell.state) <= SMALL_STEP:
        return narrow_step_alone
    return NULL
