# Back-propagation through time: for every step from the last, the gate gradients (unit by unit, row by row), then
# dh_{t-1} += dgates W_hh by the tile. Weight and input gradients are products over all rows afterwards: accumulate
# and multiply of tile.pxi.

cdef inline isize state_gradient_width(run* s) noexcept nogil:
    return s.c.w_hh_t.panels * s.c.w_hh_t.width * VLEN


cdef inline real* state_gradient(run* s, isize n) noexcept nogil:
    return <real*>s.dh + n * state_gradient_width(s)


# dL/dh of unit j from later steps, and from this step's output.
cdef inline vf take_state_gradient(run* s, step* t, isize j, isize n) noexcept nogil:
    return (vload(state_gradient(s, n) + j * VLEN)
            + load_output(t.dy + row_offset(s.dy_rows, n, s.dy_n), j, s.c.hidden))


# Rows n0..active of out += left w, out padded to whole panels.
cdef int rows_product(run* s, step* t, const matrix* w, const real* left, isize left_row, isize left_outer,
                      real* out, isize out_row) noexcept nogil:
    cdef isize i, p, n, R
    cdef real* at
    for i in range(w.panels):
        p = w.panels - 1 - i if t.t & 1 else i      # to and fro, as forward_step does
        n = s.n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[w.width])
            if should_stop_after(s.poll, &s.work, R * w.outer * w.depth * w.width):
                return -1
            at = out + n * out_row + p * w.width * VLEN
            panel_product(w, p, left + n * left_row, left_row, left_outer, at, out_row, at, out_row, R)
            n += R
    return 0


# Projection: dh_t with the output's part goes to dstate, dm = dh W_hr to scratch, and dh is cleared.
cdef int projection_gradients(run* s, step* t) noexcept nogil:
    cdef isize n, j, width = s.c.state_units * VLEN, dm_row = s.c.w_hr_t.panels * s.c.w_hr_t.width * VLEN
    cdef real* kept = <real*>s.dstate + t.offset * width
    cdef real* dm = <real*>s.scratch - s.n0 * dm_row        # row n at n * dm_row
    for n in range(s.n0, t.active):
        for j in range(s.c.state_units):
            vstore(kept + n * width + j * VLEN,
                   vload(state_gradient(s, n) + j * VLEN)
                   + load_output(t.dy + row_offset(s.dy_rows, n, s.dy_n), j, s.c.state))
        memset(state_gradient(s, n), 0, <size_t>state_gradient_width(s) * sizeof(real))
        memset(dm + n * dm_row, 0, <size_t>dm_row * sizeof(real))
    return rows_product(s, t, &s.c.w_hr_t, kept, width, 0, dm, dm_row)


cdef void gradients_any(run* s, step* t, isize j, const real* dm_rows, isize dm_row) noexcept nogil:
    if s.c.kind == LSTM:
        lstm_gradients_any(s, t, j, dm_rows, dm_row)
    elif s.c.kind == GRU:
        gru_gradients(s, t, j, False)
    else:
        gru_before_gradients(s, t, j, False)


cdef int backward_step(run* s, step* t) noexcept nogil:
    cdef isize j, at = t.offset * s.c.deltas * VLEN, delta_row = s.c.deltas * VLEN
    cdef isize panel = s.rows * delta_row, state_width = state_gradient_width(s)
    cdef isize dm_row = s.c.w_hr_t.panels * s.c.w_hr_t.width * VLEN
    cdef isize drh_row = s.c.w_hn_t.panels * s.c.w_hn_t.width * VLEN
    cdef real* deltas = <real*>s.dgates + at
    cdef real* scratch = <real*>s.scratch - s.n0 * max(dm_row, drh_row)     # row n at n * its width
    cdef int kind = s.c.kind
    if s.c.w_hr.data != NULL and projection_gradients(s, t):
        return -1
    for j in range(s.c.units):
        if should_stop_after(s.poll, &s.work, (t.active - s.n0) * 64):
            return -1
        if kind == RNN_TANH or kind == RNN_RELU:
            rnn_gradients(s, t, j)
        elif not s.c.plain:
            gradients_any(s, t, j, scratch, dm_row)
        elif kind == LSTM:
            lstm_gradients(s, t, j, scratch, dm_row)
        elif kind == GRU:
            gru_gradients(s, t, j, True)
        else:
            gru_before_gradients(s, t, j, True)
    if kind == GRU_BEFORE:
        memset(scratch + s.n0 * drh_row, 0, <size_t>((t.active - s.n0) * drh_row) * sizeof(real))
        if rows_product(s, t, &s.c.w_hn_t, deltas + 2 * VLEN, delta_row, panel, scratch, drh_row):
            return -1
        for j in range(s.c.units):
            if s.c.plain:
                gru_before_reset_gradients(s, t, j, scratch, drh_row, True)
            else:
                gru_before_reset_gradients(s, t, j, scratch, drh_row, False)
    return rows_product(s, t, &s.c.w_hh_t, deltas, delta_row, panel, <real*>s.dh, state_width)


cdef int backward(run* s) noexcept nogil:
    cdef step t
    cdef isize running = 0, next_running = 0, n
    if s.lengths == NULL:
        running = s.N
    t.offset = s.rows
    t.pre = NULL
    for t.t in range(s.T - 1, -1, -1):
        if s.lengths != NULL:
            while running < s.N and s.lengths[running] > t.t:
                running += 1
        t.offset -= running
        if running > s.n0:
            locate(s, &t, running, next_running)
            if backward_step(s, &t):
                return -1
            if s.reset != NULL:      # the step began from zero: nothing flows to the state before it
                for n in range(s.n0, t.active):
                    if s.reset[t.offset + n]:
                        memset(state_gradient(s, n), 0, <size_t>state_gradient_width(s) * sizeof(real))
                        if s.c.kind == LSTM:
                            memset(<real*>s.dc + n * s.c.units * VLEN, 0, <size_t>(s.c.units * VLEN) * sizeof(real))
        next_running = running
    return 0


cdef isize plan_backward(run* s) noexcept nogil:
    cdef isize width = max(s.c.w_hr_t.panels * s.c.w_hr_t.width, s.c.w_hn_t.panels * s.c.w_hn_t.width)
    return (s.n1 - s.n0) * width * VLEN
