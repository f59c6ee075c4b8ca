# One row of a plain cell of narrow weights: for every panel of units the sums of x and h and on them, still in
# registers, the cell. While a panel's cell waits for its own results, the processor already reads the weights of the
# next panel.
#
# A small cell goes through a step, or the steps of a sequence, without looking for rows, as in small.pxi. The sums are
# those of the general pass: of int8 whole numbers, and each output's two products are added to its bias in the same
# order; of bfloat16 each output's bias, then x's k, then h's k.
#
# Uses narrow_rows, narrow, narrow_row (narrow), integer_product, dot and what goes with it (integer_tile), add_paired,
# add_widened (pair_tile), small_row, lstm_units
# (small), forward_args, packed_cell, matrix, step_function (structs), store_output, state_width, unit_width (forward).

# Where one row reads and writes in one step. The row's numbers may be taken from x and h before anything is written.
cdef struct narrow_step_row:
    small_row at                # cell, input_sums, c, c_n, and h: the state before the step, in float
    const signed char* x        # narrowed; unused where at.input_sums are given
    const signed char* h
    real x_scale, h_scale       # int8
    vf* h_n                     # the state after it; may be h
    real* y                     # or NULL


# How products are summed: four int8 numbers or a pair of bfloat16 numbers by one instruction of the CPU, or without it.
cdef enum: WIDE, DOT, WIDENED, PAIRED


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
        total = dot_sums(acc[0][q], fast)
        for c in range(1, chains):
            total = vi_add(total, dot_sums(acc[c][q], fast))
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


# bfloat16: the same of `group` panels side by side, whose sums hide the latency of each other's products.
cdef inline void add_pair_panels(vf* sums, const matrix* w, isize p, const signed char* v, const int P, const int group,
                                 const int how) noexcept nogil:
    cdef isize k, pairs = (w.depth + 1) // 2, panel = pairs * P * 2 * VLEN
    cdef const unsigned short* weights = <const unsigned short*>w.data + p * panel
    cdef int u
    for k in range(pairs):
        for u in range(group):
            if how == PAIRED:
                add_paired(sums + u * P, weights + u * panel, v, 0, 1, P)
            else:
                add_widened(sums + u * P, weights + u * panel, v, 0, 1, P, 0)
                add_widened(sums + u * P, weights + u * panel, v, 0, 1, P, 1)
        weights += P * 2 * VLEN
        v += sizeof(real) if how == PAIRED else 2 * sizeof(real)


cdef inline void pair_panel_sums(const narrow_step_row* row, vf* sums, vf* n_input, isize p, const int P,
                                 const int group, const int how) noexcept nogil:
    cdef const packed_cell* cell = row.at.cell
    cdef int u, q
    for u in range(group):
        for q in range(P):
            if row.at.input_sums != NULL:
                sums[u * P + q] = vload(row.at.input_sums + (p + u) * row.at.input_panel + q * VLEN)
            else:
                sums[u * P + q] = compute_now(vload(<const real*>cell.bias + ((p + u) * P + q) * VLEN))
    if row.at.input_sums == NULL:
        add_pair_panels(sums, &cell.w_ih, p, row.x, P, group, how)
    if n_input != NULL:
        for u in range(group):
            n_input[u] = sums[3 * u + 2]
            sums[3 * u + 2] = vload(<const real*>cell.bias_n + (p + u) * VLEN)
    add_pair_panels(sums, &cell.w_hh, p, row.h, P, group, how)


# The sums of panels p..p+group.
cdef inline void panel_group_sums(const narrow_step_row* row, vf* sums, vf* n_input, isize p, const int P,
                                  const int group, const int chains, const int how) noexcept nogil:
    cdef int u
    if how == PAIRED or how == WIDENED:
        pair_panel_sums(row, sums, n_input, p, P, group, how)
    else:
        for u in range(group):
            row_sums(row, sums + u * P, n_input + u if n_input != NULL else NULL, p + u, P, chains, how == DOT)


# ---- Panels p0..p1 of one step -------------------------------------------------------------------

cdef inline void store_row_output(const narrow_step_row* row, isize unit) noexcept nogil:
    if row.y != NULL:
        store_output(row.y, row.h_n[unit], unit, row.at.cell.state)


# Panels p..p+group, whose cells follow the sums of all of them.
cdef inline void lstm_panel_group(const narrow_step_row* row, isize p, const int group, const int how) noexcept nogil:
    cdef vf[8] sums
    cdef int u
    panel_group_sums(row, sums, NULL, p, 4, group, 2, how)
    lstm_units(&row.at, sums, row.h_n, p, group)
    for u in range(group):
        store_row_output(row, p + u)


cdef inline void gru_panel_group(const narrow_step_row* row, isize p, const int group, const int how) noexcept nogil:
    cdef vf[6] sums
    cdef vf[2] n_input
    cdef int u
    panel_group_sums(row, sums, n_input, p, 3, group, 3, how)
    gru_units(&row.at, sums, n_input, row.h_n, p, group)
    for u in range(group):
        store_row_output(row, p + u)


cdef inline void rnn_panel_group(const narrow_step_row* row, isize p, const int P, const int group, const int chains,
                                 const int how) noexcept nogil:
    cdef vf[8] sums
    cdef int u
    panel_group_sums(row, sums, NULL, p, P, group, chains, how)
    rnn_units(&row.at, sums, P * group)
    for u in range(P * group):
        row.h_n[p * P + u] = sums[u]
        store_row_output(row, p * P + u)


# How many panels follow each other as a group when `done` of `count` are done: two of bfloat16, or where there are no
# more than two.
cdef inline bint goes_by_two(isize done, isize count, const int how) noexcept nogil:
    return done + 2 <= count and (how == PAIRED or how == WIDENED or count == 2)


# The first of `size` panels that come next.
cdef inline isize next_panel(const narrow_step_row* row, isize p0, isize p1, isize done, isize size) noexcept nogil:
    return p1 - done - size if row.at.backwards else p0 + done


cdef inline void lstm_panels(const narrow_step_row* row, isize p0, isize p1, const int how) noexcept nogil:
    cdef isize done = 0
    while done < p1 - p0:
        if goes_by_two(done, p1 - p0, how):
            lstm_panel_group(row, next_panel(row, p0, p1, done, 2), 2, how)
            done += 2
        else:
            lstm_panel_group(row, next_panel(row, p0, p1, done, 1), 1, how)
            done += 1


cdef inline void gru_panels(const narrow_step_row* row, isize p0, isize p1, const int how) noexcept nogil:
    cdef isize done = 0
    while done < p1 - p0:
        if goes_by_two(done, p1 - p0, how):
            gru_panel_group(row, next_panel(row, p0, p1, done, 2), 2, how)
            done += 2
        else:
            gru_panel_group(row, next_panel(row, p0, p1, done, 1), 1, how)
            done += 1


cdef inline void rnn_panels(const narrow_step_row* row, isize p0, isize p1, const int P, const int chains,
                            const int how) noexcept nogil:
    cdef isize done = 0
    while done < p1 - p0:
        if goes_by_two(done, p1 - p0, how):
            rnn_panel_group(row, next_panel(row, p0, p1, done, 2), P, 2, chains, how)
            done += 2
        else:
            rnn_panel_group(row, next_panel(row, p0, p1, done, 1), P, 1, chains, how)
            done += 1


# Instances, one a line: <how>_<cell>.

cdef void dot_lstm(const narrow_step_row* row, isize a, isize b) noexcept nogil: lstm_panels(row, a, b, DOT)
cdef void dot_gru(const narrow_step_row* row, isize a, isize b) noexcept nogil: gru_panels(row, a, b, DOT)
cdef void dot_rnn1(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 1, 8, DOT)
cdef void dot_rnn2(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 2, 4, DOT)
cdef void dot_rnn3(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 3, 3, DOT)
cdef void dot_rnn4(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 4, 2, DOT)

cdef void wide_lstm(const narrow_step_row* row, isize a, isize b) noexcept nogil: lstm_panels(row, a, b, WIDE)
cdef void wide_gru(const narrow_step_row* row, isize a, isize b) noexcept nogil: gru_panels(row, a, b, WIDE)
cdef void wide_rnn1(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 1, 8, WIDE)
cdef void wide_rnn2(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 2, 4, WIDE)
cdef void wide_rnn3(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 3, 3, WIDE)
cdef void wide_rnn4(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 4, 2, WIDE)

cdef void paired_lstm(const narrow_step_row* row, isize a, isize b) noexcept nogil: lstm_panels(row, a, b, PAIRED)
cdef void paired_gru(const narrow_step_row* row, isize a, isize b) noexcept nogil: gru_panels(row, a, b, PAIRED)
cdef void paired_rnn1(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 1, 8, PAIRED)
cdef void paired_rnn2(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 2, 4, PAIRED)
cdef void paired_rnn3(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 3, 3, PAIRED)
cdef void paired_rnn4(const narrow_step_row* row, isize a, isize b) noexcept nogil: rnn_panels(row, a, b, 4, 2, PAIRED)

cdef void widened_lstm(const narrow_step_row* row, isize a, isize b) noexcept nogil: lstm_panels(row, a, b, WIDENED)
cdef void widened_gru(const narrow_step_row* row, isize a, isize b) noexcept nogil: gru_panels(row, a, b, WIDENED)
cdef void widened_rnn1(const narrow_step_row* row, isize a, isize b) noexcept nogil:
    rnn_panels(row, a, b, 1, 8, WIDENED)
cdef void widened_rnn2(const narrow_step_row* row, isize a, isize b) noexcept nogil:
    rnn_panels(row, a, b, 2, 4, WIDENED)
cdef void widened_rnn3(const narrow_step_row* row, isize a, isize b) noexcept nogil:
    rnn_panels(row, a, b, 3, 3, WIDENED)
cdef void widened_rnn4(const narrow_step_row* row, isize a, isize b) noexcept nogil:
    rnn_panels(row, a, b, 4, 2, WIDENED)

ctypedef void (*row_function)(const narrow_step_row*, isize, isize) noexcept nogil

cdef row_function[4][4][5] ROW_CELLS                # [how][kind][vectors of a panel]
ROW_CELLS[WIDE][RNN_TANH] = [NULL, wide_rnn1, wide_rnn2, wide_rnn3, wide_rnn4]
ROW_CELLS[WIDE][RNN_RELU] = [NULL, wide_rnn1, wide_rnn2, wide_rnn3, wide_rnn4]
ROW_CELLS[WIDE][LSTM] = [NULL, NULL, NULL, NULL, wide_lstm]
ROW_CELLS[WIDE][GRU] = [NULL, NULL, NULL, wide_gru, NULL]
ROW_CELLS[DOT][RNN_TANH] = [NULL, dot_rnn1, dot_rnn2, dot_rnn3, dot_rnn4]
ROW_CELLS[DOT][RNN_RELU] = [NULL, dot_rnn1, dot_rnn2, dot_rnn3, dot_rnn4]
ROW_CELLS[DOT][LSTM] = [NULL, NULL, NULL, NULL, dot_lstm]
ROW_CELLS[DOT][GRU] = [NULL, NULL, NULL, dot_gru, NULL]
ROW_CELLS[WIDENED][RNN_TANH] = [NULL, widened_rnn1, widened_rnn2, widened_rnn3, widened_rnn4]
ROW_CELLS[WIDENED][RNN_RELU] = [NULL, widened_rnn1, widened_rnn2, widened_rnn3, widened_rnn4]
ROW_CELLS[WIDENED][LSTM] = [NULL, NULL, NULL, NULL, widened_lstm]
ROW_CELLS[WIDENED][GRU] = [NULL, NULL, NULL, widened_gru, NULL]
ROW_CELLS[PAIRED][RNN_TANH] = [NULL, paired_rnn1, paired_rnn2, paired_rnn3, paired_rnn4]
ROW_CELLS[PAIRED][RNN_RELU] = [NULL, paired_rnn1, paired_rnn2, paired_rnn3, paired_rnn4]
ROW_CELLS[PAIRED][LSTM] = [NULL, NULL, NULL, NULL, paired_lstm]
ROW_CELLS[PAIRED][GRU] = [NULL, NULL, NULL, paired_gru, NULL]


cdef inline bint is_plain_row_cell(const packed_cell* cell) noexcept nogil:
    return cell.plain and cell.w_hr.data == NULL and cell.kind != GRU_BEFORE


cdef inline void step_panels(const narrow_step_row* row, isize p0, isize p1) noexcept nogil:
    cdef const matrix* w = &row.at.cell.w_hh
    cdef int how
    if is_integer(w):
        how = DOT if HAS_DOT and w.fast else WIDE
    else:
        how = PAIRED if HAS_PAIRS and w.fast else WIDENED
    ROW_CELLS[how][row.at.cell.kind][w.width](row, p0, p1)


# Narrows h and, where its sums are not given, x; to memory for both.
cdef inline void narrow_step_operands(narrow_step_row* row, signed char* x, signed char* h) noexcept nogil:
    cdef const packed_cell* cell = row.at.cell
    cdef narrow_rows rows
    row.x, row.h = x, h
    rows.row = 0
    if row.at.input_sums == NULL:
        rows.data, rows.scale = x, &row.x_scale
        narrow(&cell.w_ih, row.at.x, 0, 1, &rows)
    rows.data, rows.scale = h, &row.h_scale
    narrow(&cell.w_hh, row.at.h, 0, 1, &rows)


# ---- One step alone: the step of a stream --------------------------------------------------------

cdef enum: SMALL_STEP = 400000      # multiply-adds of an int8 step that takes no longer than other calls that keep the
#                                     GIL; bfloat16 takes twice as long


# Scratch has room for the narrowed x and h in this order, as place_part lays it out.
cdef void narrow_step_alone(const forward_args* args) noexcept nogil:
    cdef narrow_step_row row
    cdef signed char* x = <signed char*>args.run.scratch
    row.at = row_of_step(args)
    row.h_n, row.y = <vf*>args.h_n, <real*>args.y
    narrow_step_operands(&row, x, x + narrow_row(&row.at.cell.w_ih))
    step_panels(&row, 0, row.at.cell.w_ih.panels)


# The same of bfloat16 weights and one or two panels of an LSTM or GRU, their number and the cell being constants: at
# this size finding what to call costs as much as a tenth of the arithmetic.
cdef inline void pair_step_alone(const forward_args* args, const bint lstm, const int panels,
                                 const int how) noexcept nogil:
    cdef narrow_step_row row
    cdef signed char* x = <signed char*>args.run.scratch
    cdef signed char* h = x + narrow_row(&args.run.cell.w_ih)
    cdef int u
    row.at = row_of_step(args)
    row.h_n, row.y, row.x, row.h = <vf*>args.h_n, <real*>args.y, x, h
    for u in range(panels):
        round_vector(h, u * VLEN, vload(row.at.h + u * VLEN), how == PAIRED)
    round_row(row.at.x, row.at.cell.input, x, how == PAIRED)
    if lstm:
        lstm_panel_group(&row, 0, panels, how)
    else:
        gru_panel_group(&row, 0, panels, how)


cdef void paired_step_lstm1(const forward_args* args) noexcept nogil: pair_step_alone(args, True, 1, PAIRED)
cdef void paired_step_lstm2(const forward_args* args) noexcept nogil: pair_step_alone(args, True, 2, PAIRED)
cdef void paired_step_gru1(const forward_args* args) noexcept nogil: pair_step_alone(args, False, 1, PAIRED)
cdef void paired_step_gru2(const forward_args* args) noexcept nogil: pair_step_alone(args, False, 2, PAIRED)
cdef void widened_step_lstm1(const forward_args* args) noexcept nogil: pair_step_alone(args, True, 1, WIDENED)
cdef void widened_step_lstm2(const forward_args* args) noexcept nogil: pair_step_alone(args, True, 2, WIDENED)
cdef void widened_step_gru1(const forward_args* args) noexcept nogil: pair_step_alone(args, False, 1, WIDENED)
cdef void widened_step_gru2(const forward_args* args) noexcept nogil: pair_step_alone(args, False, 2, WIDENED)

cdef step_function[2][2][3] PAIR_STEPS              # [is paired][is LSTM][panels]
PAIR_STEPS[0][0] = [NULL, widened_step_gru1, widened_step_gru2]
PAIR_STEPS[0][1] = [NULL, widened_step_lstm1, widened_step_lstm2]
PAIR_STEPS[1][0] = [NULL, paired_step_gru1, paired_step_gru2]
PAIR_STEPS[1][1] = [NULL, paired_step_lstm1, paired_step_lstm2]


cdef step_function narrow_small_step(const packed_cell* cell) noexcept nogil:
    cdef isize outputs = cell.w_ih.panels * cell.w_ih.width * VLEN
    cdef isize most = SMALL_STEP if is_integer(&cell.w_hh) else SMALL_STEP // 2
    cdef bint paired = HAS_PAIRS and cell.w_hh.fast
    if (is_plain_row_cell(cell) and not is_integer(&cell.w_hh) and (cell.kind == LSTM or cell.kind == GRU)
            and cell.w_ih.panels <= 2):
        return PAIR_STEPS[paired][cell.kind == LSTM][cell.w_ih.panels]
    if is_plain_row_cell(cell) and outputs * (cell.input + cell.state) <= most:
        return narrow_step_alone
    return NULL
