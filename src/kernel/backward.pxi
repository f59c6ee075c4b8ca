# Back-propagation through time: for every step from the last, the gate gradients (unit by unit, row by row), then
# dh_{t-1} += dgates W_hh by the tile. Weight and input gradients are products over all rows afterwards (products.pxi).
#
# Uses layer_run, backward_args, matrix (structs), step, locate_states, step_offset, row_offset, load_output,
# state_width, unit_width, check_run (forward), tile_rows, ROWS, panel_product (tile), should_stop_after (kernels),
# lstm_gradients, gru_gradients, gru_before_gradients, gru_before_reset_gradients, rnn_gradients (lstm, gru, rnn).

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


# Rows n0..active of out += v w; out padded to whole panels.
cdef int rows_product(layer_run* run, step* t, const matrix* w, const real* v, isize v_row, isize v_outer,
                      real* out, isize out_row) noexcept nogil:
    cdef isize i, p, n, R
    cdef real* at
    for i in range(w.panels):
        p = w.panels - 1 - i if t.index & 1 else i      # every other step backwards, as forward_step does
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[w.width])
            if should_stop_after(run.poll, &run.work, R * w.outer * w.depth * w.width):
                return -1
            at = out + n * out_row + p * w.width * VLEN
            panel_product(w, p, v + n * v_row, v_row, v_outer, at, out_row, at, out_row, R)
            n += R
    return 0


# Projection: dh_t with the output's part goes to dstate, dm = dh W_hr to scratch (dm_rows), and dh is cleared.
cdef int projection_gradients(backward_args* args, step* t, real* dm_rows, isize dm_row) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize n, j, width = state_width(run)
    cdef real* dstate = <real*>args.dstate + t.offset * width
    for n in range(run.n0, t.active):
        for j in range(run.cell.state_units):
            vstore(dstate + n * width + j * VLEN, take_state_gradient(args, t, j, n))
        memset(state_gradient(args, n), 0, <size_t>state_gradient_width(run) * sizeof(real))
        memset(dm_rows + n * dm_row, 0, <size_t>dm_row * sizeof(real))
    return rows_product(run, t, &run.cell.w_hr_t, dstate, width, 0, dm_rows, dm_row)


cdef void gradients_with_options(backward_args* args, step* t, isize j, const real* dm_rows,
                                 isize dm_row) noexcept nogil:
    if args.run.cell.kind == LSTM:
        lstm_gradients_with_options(args, t, j, dm_rows, dm_row)
    elif args.run.cell.kind == GRU:
        gru_gradients(args, t, j, False)
    else:
        gru_before_gradients(args, t, j, False)


# The gate gradients of a step; of a GRU_BEFORE all but r's.
cdef int gate_gradients(backward_args* args, step* t, const real* dm_rows, isize dm_row) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef int kind = run.cell.kind
    cdef isize j
    for j in range(run.cell.units):
        if should_stop_after(run.poll, &run.work, (t.active - run.n0) * 64):
            return -1
        if kind == RNN_TANH or kind == RNN_RELU:
            rnn_gradients(args, t, j)
        elif not run.cell.plain:
            gradients_with_options(args, t, j, dm_rows, dm_row)
        elif kind == LSTM:
            lstm_gradients(args, t, j, dm_rows, dm_row)
        elif kind == GRU:
            gru_gradients(args, t, j, True)
        else:
            gru_before_gradients(args, t, j, True)
    return 0


# GRU_BEFORE: d(r h) = W_hn' dn to scratch (drh_rows), and from it r's gradient and its part of dh.
cdef int reset_gate_gradients(backward_args* args, step* t, const real* dn, isize delta_row, isize panel,
                              real* drh_rows, isize drh_row) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize j
    memset(drh_rows + run.n0 * drh_row, 0, <size_t>((t.active - run.n0) * drh_row) * sizeof(real))
    if rows_product(run, t, &run.cell.w_hn_t, dn, delta_row, panel, drh_rows, drh_row):
        return -1
    for j in range(run.cell.units):
        if run.cell.plain:
            gru_before_reset_gradients(args, t, j, drh_rows, drh_row, True)
        else:
            gru_before_reset_gradients(args, t, j, drh_rows, drh_row, False)
    return 0


cdef int backward_step(backward_args* args, step* t) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize delta_row = cell.deltas * VLEN, panel = run.rows * delta_row
    cdef isize dm_row = matrix_width(&cell.w_hr_t), drh_row = matrix_width(&cell.w_hn_t)
    cdef real* deltas = <real*>args.dgates + t.offset * delta_row
    cdef real* scratch = <real*>run.scratch - run.n0 * max(dm_row, drh_row)     # row n at n * its width
    if cell.w_hr.data != NULL and projection_gradients(args, t, scratch, dm_row):
        return -1
    if gate_gradients(args, t, scratch, dm_row):
        return -1
    if cell.kind == GRU_BEFORE and reset_gate_gradients(args, t, deltas + 2 * VLEN, delta_row, panel, scratch,
                                                        drh_row):
        return -1
    return rows_product(run, t, &cell.w_hh_t, deltas, delta_row, panel, <real*>args.dh, state_gradient_width(run))


# A row that was reset began its step from zero: nothing flows to the state before it.
cdef void clear_reset_gradients(backward_args* args, step* t) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize n
    for n in range(run.n0, t.active):
        if run.reset[t.offset + n]:
            memset(state_gradient(args, n), 0, <size_t>state_gradient_width(run) * sizeof(real))
            if run.cell.kind == LSTM:
                memset(<real*>args.dc + n * unit_width(run), 0, <size_t>unit_width(run) * sizeof(real))


cdef int backward(backward_args* args) noexcept nogil:
    cdef step t
    cdef layer_run* run = &args.run
    cdef isize running = 0, next_running = 0
    check_run(run)
    CHECK(run.keep and args.dh != NULL and args.dgates != NULL and (run.cell.kind != LSTM or args.dc != NULL))
    if run.lengths == NULL:
        running = run.N
    t.offset = run.rows
    for t.index in range(run.T - 1, -1, -1):
        if run.lengths != NULL:
            while running < run.N and run.lengths[running] > t.index:
                running += 1
        t.offset -= running
        if running > run.n0:
            locate_states(run, &t, running, next_running)
            t.dy = <const real*>args.dy + step_offset(&t, run.packed, args.dy_n, args.dy_t)
            if backward_step(args, &t):
                return -1
            if run.reset != NULL:
                clear_reset_gradients(args, &t)
        next_running = running
    return 0


cdef isize plan_backward(backward_args* args) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    return (args.run.n1 - args.run.n0) * max(matrix_width(&cell.w_hr_t), matrix_width(&cell.w_hn_t))
