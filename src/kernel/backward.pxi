# Back-propagation through time: for every step from the last, the gate gradients (unit by unit, row by row), then
# dh_{t-1} += dgates W_hh by the tile. Weight and input gradients are products over all rows afterwards (products.pxi).
#
# A team (team.h) shares the columns of dh. The product needs the gate gradients of all units, these only the own
# columns of dh: so a phase takes the product of the step after it and then the gate gradients of its own step, and one
# barrier a step will do. A projection, and GRU_BEFORE, have a second product in the step, which takes a second phase.
#
# Uses layer_run, backward_args, matrix (structs), first_part, next_part (team.h), step, share, locate_states,
# step_offset, row_offset, load_output, state_width, unit_width, check_run (forward), tile_rows, ROWS, panel_vectors,
# panel_product (tile), should_stop_after (kernels), lstm_gradients, gru_gradients, gru_before_gradients,
# gru_before_reset_gradients, rnn_gradients (lstm, gru, rnn), prefetch, prefetch_shared (declarations).

# What a part takes of a product with w: panels p0..p1, and the vectors v0..v1 of the output that they write.
cdef struct columns:
    isize p0, p1, v0, v1


cdef inline columns columns_of(const matrix* w, isize part, const team_member* member) noexcept nogil:
    cdef columns c
    c.p0, c.p1 = share(w.panels, part, member), share(w.panels, part + 1, member)
    c.v0, c.v1 = min(w.vectors, c.p0 * w.width), min(w.vectors, c.p1 * w.width)
    return c


# Of a step: of the recurrent product, whose output is dh; and the units whose gradients follow.
cdef inline columns state_columns(const layer_run* run, isize part) noexcept nogil:
    return columns_of(&run.cell.w_hh_t, part, run.member)


cdef inline columns unit_columns(const layer_run* run, isize part) noexcept nogil:
    cdef const matrix* w = &run.cell.w_hh_t if run.cell.w_hr.data == NULL else &run.cell.w_hr_t
    return columns_of(w, part, run.member)

cdef inline isize matrix_width(const matrix* w) noexcept nogil:
    return w.panels * w.width * VLEN


# dL/dh of row n, as wide as the recurrent product writes it.
cdef inline isize state_gradient_width(const layer_run* run) noexcept nogil:
    return matrix_width(&run.cell.w_hh_t)


cdef inline real* state_gradient(backward_args* args, isize n) noexcept nogil:
    return <real*>args.dh + n * state_gradient_width(&args.run)


# dL/dh of unit j, row n: from later steps, and from this step's output.
cdef inline vf take_state_gradient(backward_args* args, step* t, isize j, isize n) noexcept nogil:
    return (vload(state_gradient(args, n) + j * VLEN)
            + load_output(t.dy + row_offset(args.dy_rows, n, args.dy_n), j, args.run.cell.state))


# The numbers of a step that a product takes: row n at v + n * v_row, blocks of the summed index v_outer apart. With
# weights that are pairs (run.pairs), the rows are rounded, and pair_gradients.pxi says what multiplies them.
cdef struct step_rows:
    const real* v
    isize v_row, v_outer

ctypedef void (*rounding_function)(layer_run*, const step*, const matrix*, isize, step_rows*) noexcept nogil
ctypedef void (*pairs_function)(const matrix*, isize, const real*, isize, const real*, isize, real*, isize,
                                isize) noexcept nogil

cdef rounding_function round_step_rows = NULL
cdef pairs_function pairs_panel_product = NULL


cdef inline step_rows rows_of_step(layer_run* run, const step* t, const matrix* w, isize part, const real* v,
                                   isize v_row, isize v_outer) noexcept nogil:
    cdef step_rows rows
    rows.v, rows.v_row, rows.v_outer = v, v_row, v_outer
    if run.pairs:
        round_step_rows(run, t, w, part, &rows)
    return rows


# Panel p of out += v w for rows n..n+R.
cdef inline int tile_product(layer_run* run, const matrix* w, isize p, const step_rows* rows, real* out, isize out_row,
                             isize n, isize R) noexcept nogil:
    cdef real* at = out + n * out_row + p * w.width * VLEN
    cdef const real* v = rows.v + n * rows.v_row
    if should_stop_after(run.poll, &run.work, R * w.outer * w.depth * w.width):
        return -1
    if run.pairs:
        pairs_panel_product(w, p, v, rows.v_row, at, out_row, at, out_row, R)
    else:
        panel_product(w, p, v, rows.v_row, rows.v_outer, at, out_row, at, out_row, R)
    return 0


# The i-th of panels p0..p1. Every other step takes them backwards, as units_part does.
cdef inline isize panel_in_turn(const step* t, isize p0, isize p1, isize i) noexcept nogil:
    return p1 - 1 - i if t.index & 1 else p0 + i


# Rows n0..active of out += v w, panels p0..p1 of w.
cdef int rows_product(layer_run* run, const step* t, const matrix* w, isize p0, isize p1, const step_rows* rows,
                      real* out, isize out_row) noexcept nogil:
    cdef isize i, p, n, R
    for i in range(p1 - p0):
        p = panel_in_turn(t, p0, p1, i)
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[panel_vectors(w, p)])
            if tile_product(run, w, p, rows, out, out_row, n, R):
                return -1
            n += R
    return 0


# Zeroes vectors v0..v1 of row n.
cdef inline void clear_vectors(real* rows, isize row, isize n, isize v0, isize v1) noexcept nogil:
    memset(rows + n * row + v0 * VLEN, 0, <size_t>((v1 - v0) * VLEN) * sizeof(real))


cdef void gradients_with_options(backward_args* args, step* t, isize j, isize n0, isize n1, const real* dm_rows,
                                 isize dm_row) noexcept nogil:
    if args.run.cell.kind == LSTM:
        lstm_gradients_with_options(args, t, j, n0, n1, dm_rows, dm_row)
    elif args.run.cell.kind == GRU:
        gru_gradients(args, t, j, n0, n1, False)
    else:
        gru_before_gradients(args, t, j, n0, n1, False)


# The gate gradients of units j0..j1, rows n0..n1; of a GRU_BEFORE all but r's.
cdef int gate_gradients(backward_args* args, step* t, isize j0, isize j1, isize n0, isize n1, const real* dm_rows,
                        isize dm_row) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef int kind = run.cell.kind
    cdef isize j
    for j in range(j0, j1):
        if should_stop_after(run.poll, &run.work, (n1 - n0) * 64):
            return -1
        if kind == RNN_TANH or kind == RNN_RELU:
            rnn_gradients(args, t, j, n0, n1)
        elif not run.cell.plain:
            gradients_with_options(args, t, j, n0, n1, dm_rows, dm_row)
        elif kind == LSTM:
            lstm_gradients(args, t, j, n0, n1, dm_rows, dm_row)
        elif kind == GRU:
            gru_gradients(args, t, j, n0, n1, True)
        else:
            gru_before_gradients(args, t, j, n0, n1, True)
    return 0


# What a step works in: row n of the second product's output at rows + n * row. Of one with a projection that is dm.
cdef struct second_product:
    const matrix* w                 # NULL: a step has no second product
    real* rows
    isize row


cdef inline second_product second_of(const layer_run* run) noexcept nogil:
    cdef second_product s
    s.w = &run.cell.w_hr_t if run.cell.w_hr.data != NULL else &run.cell.w_hn_t
    s.row = matrix_width(s.w)
    s.rows = <real*>run.scratch - run.n0 * s.row
    if s.w.data == NULL:
        s.w = NULL
    return s


# Prefetches what the gate gradients of units j0..j1, rows n..n+R, read and write, while the tile computes: in long
# sequences it comes from memory.
cdef inline void prefetch_gradients(backward_args* args, step* t, isize j0, isize j1, isize n, isize R) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef bint rnn = cell.kind == RNN_TANH or cell.kind == RNN_RELU
    cdef isize units = cell.w_ih.width if rnn else 1                # of a panel
    cdef isize bytes = R * cell.saved * VLEN * <isize>sizeof(real), r, p, at
    for p in range(j0 // units, (j1 + units - 1) // units):
        at = saved_row(run, t, p, n, cell.saved)
        prefetch_shared(<real*>run.gates + at, bytes)
        prefetch(<real*>args.dgates + at, bytes)
    for r in range(n, n + R):
        prefetch_shared(t.dy + row_offset(args.dy_rows, r, args.dy_n) + j0 * VLEN,
                        (j1 - j0) * VLEN * <isize>sizeof(real))
        if cell.kind == LSTM:
            prefetch_shared(t.c + r * unit_width(run) + j0 * VLEN, (j1 - j0) * VLEN * <isize>sizeof(real))


# A row that was reset began its step from zero: nothing flows to the state before it.
cdef inline void clear_reset_rows(layer_run* run, const step* t, real* rows, isize row, isize n0, isize n1, isize v0,
                                  isize v1) noexcept nogil:
    cdef isize n
    if run.reset != NULL:
        for n in range(n0, n1):
            if run.reset[t.offset + n]:
                clear_vectors(rows, row, n, v0, v1)


# dh_{t-1} += dgates W_hh in a part's columns. Then, if `before` is not NULL, the gate gradients of that step, t-1, tile
# by tile, while the tile's dh is in L1.
cdef int recurrent_product(backward_args* args, step* t, step* before, isize part) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef const matrix* w = &cell.w_hh_t
    cdef isize delta_row = cell.deltas * VLEN, width = state_gradient_width(run), i, p, n, R, j0, j1
    cdef columns own = state_columns(run, part), units = unit_columns(run, part)
    cdef step_rows rows = rows_of_step(run, t, w, part, <real*>args.dgates + t.offset * delta_row, delta_row,
                                       run.rows * delta_row)
    cdef bint ahead = before != NULL and run.rows * cell.w_ih.panels * cell.saved * VLEN * <isize>sizeof(real) > L2 // 2
    if cell.kind == LSTM:
        clear_reset_rows(run, t, <real*>args.dc, unit_width(run), run.n0, t.active, units.v0, units.v1)
    for i in range(own.p1 - own.p0):
        p = panel_in_turn(t, own.p0, own.p1, i)
        j0 = p * w.width
        j1 = j0 + panel_vectors(w, p)
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[j1 - j0])
            if ahead:
                prefetch_gradients(args, before, j0, j1, n, R)
            if tile_product(run, w, p, &rows, <real*>args.dh, width, n, R):
                return -1
            clear_reset_rows(run, t, <real*>args.dh, width, n, n + R, j0, j1)
            if before != NULL and gate_gradients(args, before, j0, j1, n, n + R, NULL, 0):
                return -1
            n += R
        if before != NULL and gate_gradients(args, before, j0, j1, n, before.active, NULL, 0):
            return -1
    return 0


cdef int recurrent_part(backward_args* args, step* t, isize part) noexcept nogil:
    return recurrent_product(args, t, NULL, part)


# The product of the step that was taken before this one, and this one's gate gradients; with a projection only dL/dh.
cdef int gradients_part(backward_args* args, step* t, isize part) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef columns units
    if run.cell.w_hr.data != NULL:
        if t.later != NULL and recurrent_product(args, t.later, NULL, part):
            return -1
        projection_gradients(args, t, part)
        return 0
    if t.later != NULL:
        return recurrent_product(args, t.later, t, part)
    units = unit_columns(run, part)
    return gate_gradients(args, t, units.v0, units.v1, run.n0, t.active, NULL, 0)


# Projection: dh_t with the output's part goes to dstate, and dh is cleared.
cdef void projection_gradients(backward_args* args, step* t, isize part) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize n, j, width = state_width(run)
    cdef real* dstate = <real*>args.dstate + t.offset * width
    cdef columns own = state_columns(run, part)
    for n in range(run.n0, t.active):
        for j in range(own.v0, own.v1):
            vstore(dstate + n * width + j * VLEN, take_state_gradient(args, t, j, n))
        clear_vectors(<real*>args.dh, state_gradient_width(run), n, own.p0 * run.cell.w_hh_t.width,
                      own.p1 * run.cell.w_hh_t.width)


# The second product, and what follows it. Projection: dm = dh W_hr, and the gate gradients. GRU_BEFORE: d(r h) =
# W_hn' dn, and from it r's gradient and its part of dh.
cdef int second_part(backward_args* args, step* t, isize part) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef second_product s = second_of(run)
    cdef columns own = columns_of(s.w, part, run.member)
    cdef isize width = state_width(run), delta_row = cell.deltas * VLEN, n, j
    cdef const real* dn = <real*>args.dgates + t.offset * delta_row + 2 * VLEN
    cdef step_rows rows
    for n in range(run.n0, t.active):
        clear_vectors(s.rows, s.row, n, own.p0 * s.w.width, own.p1 * s.w.width)
    if cell.w_hr.data != NULL:
        rows = rows_of_step(run, t, s.w, part, <real*>args.dstate + t.offset * width, width, 0)
        if rows_product(run, t, s.w, own.p0, own.p1, &rows, s.rows, s.row):
            return -1
        return gate_gradients(args, t, own.v0, own.v1, run.n0, t.active, s.rows, s.row)
    rows = rows_of_step(run, t, s.w, part, dn, delta_row, run.rows * delta_row)
    if rows_product(run, t, s.w, own.p0, own.p1, &rows, s.rows, s.row):
        return -1
    for j in range(own.v0, own.v1):
        if cell.plain:
            gru_before_reset_gradients(args, t, j, s.rows, s.row, True)
        else:
            gru_before_reset_gradients(args, t, j, s.rows, s.row, False)
    return 0


ctypedef int (*backward_part)(backward_args*, step*, isize) noexcept nogil


cdef inline int backward_phase(backward_args* args, step* t, backward_part function) noexcept nogil:
    cdef isize part = first_part(args.run.member)
    while part >= 0:
        if function(args, t, part):
            return -1
        part = next_part(args.run.member, part)
    return 0 if part == PHASE_OVER else -1


cdef int backward(void* argument) noexcept nogil:
    cdef backward_args* args = <backward_args*>argument
    cdef step[2] steps               # take turns: a step and the one taken before it
    cdef step* t = &steps[0]
    cdef step* later = NULL
    cdef layer_run* run = &args.run
    cdef bint second = second_of(run).w != NULL
    cdef isize running = 0, next_running = 0, offset = run.rows, index
    check_run(run)
    CHECK(run.keep and args.dh != NULL and args.dgates != NULL and (run.cell.kind != LSTM or args.dc != NULL))
    if run.lengths == NULL:
        running = run.N
    for index in range(run.T - 1, -1, -1):
        if run.lengths != NULL:
            while running < run.N and run.lengths[running] > index:
                running += 1
        offset -= running
        if running > run.n0:
            t.index, t.offset, t.later = index, offset, later
            locate_states(run, t, running, next_running)
            t.dy = <const real*>args.dy + step_offset(t, run.packed, args.dy_n, args.dy_t)
            if backward_phase(args, t, gradients_part) or second and backward_phase(args, t, second_part):
                return -1
            later = t
            t = &steps[1] if t == &steps[0] else &steps[0]
        next_running = running
    if later != NULL:
        return backward_phase(args, later, recurrent_part)
    return 0


# Elements of scratch of the second product's rows.
cdef isize second_rows(const layer_run* run) noexcept nogil:
    return (run.n1 - run.n0) * max(matrix_width(&run.cell.w_hr_t), matrix_width(&run.cell.w_hn_t))


cdef isize plan_backward(backward_args* args) noexcept nogil:
    return second_rows(&args.run)
