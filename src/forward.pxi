# A pass forward over a run: for every step, for every panel, for every tile of rows, the gate sums (bias, then
# x's k in order, then h's k in order) and on them, still in L1, the cell's activations and state update.

cdef struct step:
    isize t, offset, next_offset        # packed row index of row 0, now and at the next step
    isize active, next_active           # rows n0..active run now; rows below next_active go on
    real* h                             # this step's slot, row n at n * padded size
    real* h_next
    real* c
    real* c_next
    real* y
    real* y_c
    const real* dy
    const real* x
    const real* pre                     # input parts of this step, or NULL; panels lie pre_panel apart
    isize pre_panel


cdef inline void store_output(real* row, vf v, isize j, isize size) noexcept nogil:
    if j * VLEN < size:
        vstore_part(row + j * VLEN, v, size - j * VLEN)


cdef inline vf load_output(const real* row, isize j, isize size) noexcept nogil:
    return vload_part(row + j * VLEN, size - j * VLEN) if j * VLEN < size else vset(0)


# Where row n begins in an array of the caller's.
cdef inline isize row_offset(const isize* rows, isize n, isize stride) noexcept nogil:
    return rows[n] if rows != NULL else n * stride


cdef inline void store_state(run* s, step* t, vf h, isize j, isize n) noexcept nogil:
    cdef isize width = s.c.state_units * VLEN
    vstore((t.h_next if n < t.next_active else <real*>s.h_n) + n * width + j * VLEN, h)
    if t.y != NULL:
        store_output(t.y + row_offset(s.y_rows, n, s.y_n), h, j, s.c.state)


cdef inline real* extra_row(run* s, step* t, isize n) noexcept nogil:
    return <real*>s.extra + (t.offset + n if s.keep else n) * s.c.units * VLEN


# Where step t finds its rows. running: rows of the whole batch that run now.
cdef inline void locate(run* s, step* t, isize running, isize next_running) noexcept nogil:
    cdef isize width = s.c.state_units * VLEN, units = s.c.units * VLEN
    t.next_offset = t.offset + running
    t.active = min(running, s.n1)
    t.next_active = next_running
    if s.keep:
        t.h = <real*>s.h + t.offset * width
        t.h_next = <real*>s.h + t.next_offset * width
        t.c = <real*>s.c_state + t.offset * units
        t.c_next = <real*>s.c_state + t.next_offset * units
    else:
        t.h = <real*>s.h + (t.t & 1) * s.N * width
        t.h_next = <real*>s.h + ((t.t + 1) & 1) * s.N * width
        t.c = t.c_next = <real*>s.c_state
    t.x = <const real*>s.x + (t.offset * s.x_n if s.lengths != NULL else t.t * s.x_t)
    t.y = <real*>s.y + (t.offset * s.y_n if s.packed else t.t * s.y_t)
    t.y_c = <real*>s.y_c + (t.offset * s.yc_n if s.packed else t.t * s.yc_t)
    t.dy = <const real*>s.dy + (t.offset * s.dy_n if s.packed else t.t * s.dy_t)


# W x + b of `steps` steps from t0, to scratch as [panel][step][row][width][VLEN].
cdef int input_parts(run* s, isize t0, isize steps) noexcept nogil:
    cdef const matrix* w = &s.c.w_ih
    cdef isize P = w.width, rows = s.n1 - s.n0
    cdef isize p, outer, inner, R, outers, inners
    cdef bint along_time = rows <= 4     # full tiles: over the steps of one row, or over the rows of one step
    cdef isize outer_x = s.x_n if along_time else s.x_t
    cdef isize outer_m = 1 if along_time else rows, inner_m = rows if along_time else 1
    cdef tile_args a
    outers = rows if along_time else steps
    inners = steps if along_time else rows
    a.init_row = 0
    a.acc_row = inner_m * P * VLEN
    a.w_step = P * VLEN
    a.operands = 1
    a.of[0].v_row = s.x_t if along_time else s.x_n
    a.of[0].v_step = 1
    a.of[0].v_outer = 0
    a.of[0].outer = 1
    a.of[0].depth = w.depth
    for p in range(w.panels):
        a.of[0].w = <const real*>w.data + p * w.depth * P * VLEN
        a.init = <const real*>s.c.bias + p * P * VLEN
        for outer in range(outers):
            inner = 0
            while inner < inners:
                R = tile_rows(inners - inner, ROWS[P])
                if should_stop_after(s.poll, &s.work, R * w.depth * P):
                    return -1
                a.of[0].v = <const real*>s.x + t0 * s.x_t + s.n0 * s.x_n + outer * outer_x + inner * a.of[0].v_row
                a.acc = (<real*>s.scratch
                         + (p * s.chunk * rows + outer * outer_m + inner * inner_m) * P * VLEN)
                TILES[P][R](&a)
                inner += R
    return 0


cdef inline void set_operand(operand* of, const matrix* w, isize p, const real* v, isize v_row) noexcept nogil:
    of.w = <const real*>w.data + p * w.outer * w.depth * w.width * VLEN
    of.w_panel = w.depth * w.width * VLEN
    of.v = v
    of.v_row = v_row
    of.v_step = 1
    of.v_outer = 0
    of.outer = w.outer
    of.depth = w.depth


cdef inline void run_tile(const tile_args* a, isize P, isize Q, isize R) noexcept nogil:
    if Q > 1:
        ROW[P](a)
    else:
        TILES[P][R](a)


# acc[panel][row][gate] of panels p..p+Q, rows n..n+R. GRU: acc[.][.][2] is W_hn h + b_hn alone, n_input W x + b_in.
cdef inline void gate_sums(run* s, step* t, vf* acc, vf* n_input, isize p, isize Q, isize n, isize R) noexcept nogil:
    cdef isize P = s.c.w_ih.width, q, r, i = 0
    cdef isize state_row = s.c.state_units * VLEN
    cdef const real* source
    cdef tile_args a
    a.acc = <real*>acc
    a.acc_row = P * VLEN
    a.acc_panel = R * P * VLEN
    a.w_step = P * VLEN
    a.operands = 0
    if t.pre == NULL:
        a.init = <const real*>s.c.bias + p * P * VLEN
        a.init_row = 0
        a.init_panel = P * VLEN
        set_operand(&a.of[0], &s.c.w_ih, p, t.x + n * s.x_n, s.x_n)
        a.operands = 1
    else:
        a.init = t.pre + p * t.pre_panel + (n - s.n0) * P * VLEN
        a.init_row = P * VLEN
        a.init_panel = t.pre_panel
    if s.c.kind == GRU or s.c.kind == GRU_BEFORE:       # the input's part of n goes its own way
        if a.operands:
            run_tile(&a, P, Q, R)
            a.init = a.acc
            a.init_row = P * VLEN
            a.init_panel = a.acc_panel
        for q in range(Q):
            for r in range(R):
                source = a.init + q * a.init_panel + r * P * VLEN
                acc[3 * i] = vload(source)
                acc[3 * i + 1] = vload(source + VLEN)
                if s.c.kind == GRU:
                    n_input[i] = vload(source + 2 * VLEN)
                    acc[3 * i + 2] = vload(<const real*>s.c.bias_n + (p + q) * VLEN)
                else:
                    acc[3 * i + 2] = vload(source + 2 * VLEN)
                i += 1
        a.init = a.acc
        a.init_row = P * VLEN
        a.init_panel = a.acc_panel
        a.operands = 0
    set_operand(&a.of[a.operands], &s.c.w_hh, p, t.h + n * state_row, state_row)
    a.operands += 1
    a.w_step = s.c.w_hh.width * VLEN
    run_tile(&a, s.c.w_hh.width, Q, R)


# acc[row][q] = rows n..n+R of `left` times panel p of w, from init.
cdef inline void panel_product(const matrix* w, isize p, const real* left, isize left_row, isize left_outer,
                               const real* init, isize init_row, real* out, isize out_row, isize R) noexcept nogil:
    cdef tile_args a
    a.acc = out
    a.acc_row = out_row
    a.init = init
    a.init_row = init_row
    a.w_step = w.width * VLEN
    a.operands = 1
    set_operand(&a.of[0], w, p, left, left_row)
    a.of[0].v_outer = left_outer
    TILES[w.width][R](&a)


# The lines that rows n..n+R of panel p will be stored to start to flow while the tile computes. Where sequences are
# long they come from memory, and the stores would wait for them.
cdef inline void expect_stores(run* s, step* t, isize p, isize n, isize R) noexcept nogil:
    cdef isize r, units = s.c.units // s.c.w_ih.panels, bytes = units * VLEN * <isize>sizeof(real)
    cdef isize first = p * units * VLEN, width = s.c.state_units * VLEN
    if t.y != NULL and s.c.w_hr.data == NULL:
        for r in range(n, n + R):
            prefetch(t.y + row_offset(s.y_rows, r, s.y_n) + first, bytes)
    if s.keep:
        prefetch(<real*>s.gates + (p * s.rows + t.offset + n) * s.c.saved * VLEN,
                 R * s.c.saved * VLEN * <isize>sizeof(real))
        for r in range(n, n + R):
            prefetch(t.h_next + r * width + first, bytes)
            if s.c.kind == LSTM:
                prefetch(t.c_next + r * s.c.units * VLEN + first, bytes)


# What follows on the sums in a cell with options.
cdef void cells_any(run* s, step* t, const vf* acc, const vf* n_input, isize p, isize Q, isize n,
                    isize R) noexcept nogil:
    if s.c.kind == LSTM:
        lstm_cells_any(s, t, acc, p, Q, n, R)
    elif s.c.kind == GRU:
        gru_cells(s, t, acc, n_input, p, Q, n, R, False)
    elif s.c.kind == GRU_BEFORE:
        gru_before_gates(s, t, acc, <real*>s.scratch, p, n, R, False)
    else:
        rnn_cells(s, t, acc, p, Q, n, R, False)


# Every other step takes the panels backwards: it begins with the weights the last one ended with, which the caches
# still hold where they cannot hold all.
cdef int forward_step(run* s, step* t) noexcept nogil:
    cdef vf[32] acc
    cdef vf[16] n_input
    cdef isize P = s.c.w_ih.width, panels = s.c.w_ih.panels, done = 0, p, Q, n, R, r, j
    cdef isize most = ROWS[P], units = s.c.units * VLEN
    cdef int kind = s.c.kind
    cdef const matrix* w
    cdef real* between = <real*>s.scratch
    cdef vf[4] zero
    while done < panels:
        Q = ROW_PANELS[P] if t.active - s.n0 == 1 and done + ROW_PANELS[P] <= panels and kind != GRU_BEFORE else 1
        p = panels - done - Q if (t.t + s.turn) & 1 else done
        n = s.n0
        while n < t.active:
            R = tile_rows(t.active - n, most)
            if should_stop_after(s.poll, &s.work, R * Q * P * (s.c.input + s.c.state)):
                return -1
            if Q == 1:
                expect_stores(s, t, p, n, R)
            gate_sums(s, t, acc, n_input, p, Q, n, R)
            if not s.c.plain:
                cells_any(s, t, acc, n_input, p, Q, n, R)
            elif kind == LSTM:
                lstm_cells(s, t, acc, p, Q, n, R)
            elif kind == GRU:
                gru_cells(s, t, acc, n_input, p, Q, n, R, True)
            elif kind == GRU_BEFORE:
                gru_before_gates(s, t, acc, between, p, n, R, True)
            else:
                rnn_cells(s, t, acc, p, Q, n, R, True)
            n += R
        done += Q
    if kind == GRU_BEFORE:
        w = &s.c.w_hn
        for p in range(w.panels):
            n = s.n0
            while n < t.active:
                R = tile_rows(t.active - n, ROWS[1])
                if should_stop_after(s.poll, &s.work, R * w.depth):
                    return -1
                panel_product(w, p, extra_row(s, t, n), units, 0,
                              between + ((n - s.n0) * s.c.units + p) * 2 * VLEN + VLEN, s.c.units * 2 * VLEN,
                              <real*>acc, VLEN, R)
                if s.c.plain:
                    gru_before_cells(s, t, acc, between, p, n, R, True)
                else:
                    gru_before_cells_any(s, t, acc, between, p, n, R)
                n += R
    elif s.c.w_hr.data != NULL:
        w = &s.c.w_hr
        zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
        for p in range(w.panels):
            n = s.n0
            while n < t.active:
                R = tile_rows(t.active - n, ROWS[w.width])
                if should_stop_after(s.poll, &s.work, R * w.depth * w.width):
                    return -1
                panel_product(w, p, extra_row(s, t, n), units, 0, <const real*>zero, 0,
                              <real*>acc, w.width * VLEN, R)
                for r in range(R):
                    for j in range(w.width):
                        store_state(s, t, acc[r * w.width + j], p * w.width + j, n + r)
                n += R
    return 0


# Rows whose reset_mask is set start this step from zero.
cdef void reset_rows(run* s, step* t) noexcept nogil:
    cdef isize n, width = s.c.state_units * VLEN, units = s.c.units * VLEN
    for n in range(s.n0, t.active):
        if s.reset[t.offset + n]:
            memset(t.h + n * width, 0, <size_t>width * sizeof(real))
            if s.c.kind == LSTM:
                memset(t.c + n * units, 0, <size_t>units * sizeof(real))


cdef int forward(run* s) noexcept nogil:
    cdef step t
    cdef isize running = s.N, next_running, rows = s.n1 - s.n0, P = s.c.w_ih.width
    t.offset = 0
    t.pre = NULL
    t.pre_panel = s.chunk * rows * P * VLEN
    for t.t in range(s.T):
        if s.lengths != NULL:
            while running > 0 and s.lengths[running - 1] <= t.t:
                running -= 1
        next_running = running if t.t + 1 < s.T else 0
        if s.lengths != NULL:
            while next_running > 0 and s.lengths[next_running - 1] <= t.t + 1:
                next_running -= 1
        if running <= s.n0:
            break
        locate(s, &t, running, next_running)
        if s.reset != NULL:
            reset_rows(s, &t)
        if s.chunk > 0:
            if t.t % s.chunk == 0 and input_parts(s, t.t, min(s.chunk, s.T - t.t)):
                return -1
            t.pre = <const real*>s.scratch + (t.t % s.chunk) * rows * P * VLEN
        if forward_step(s, &t):
            return -1
        t.offset = t.next_offset
    return 0


cdef enum: L2 = 786432     # bytes of weights that may count on staying in a core's L2


# The input's part is worth a pass of its own where a step has too few rows to fill a tile, or where the weights
# pass L2 and reading W_ih once for many steps saves half of the traffic. Ragged rows lie too irregularly for it.
cdef isize plan(run* s) noexcept nogil:
    cdef isize rows = s.n1 - s.n0, width = s.c.w_ih.panels * s.c.w_ih.width * VLEN
    cdef isize weights = (s.c.w_ih.depth + s.c.w_hh.depth) * width * <isize>sizeof(real)
    cdef isize step_rows
    s.chunk = 0
    if rows == 0:
        return 0
    if s.c.kind == GRU_BEFORE:
        return rows * s.c.units * 2 * VLEN
    if s.lengths == NULL and s.T > 1 and s.c.input > 8 and (rows <= 4 or weights > L2):
        step_rows = max(<isize>L2 // 2 // (width * <isize>sizeof(real)), <isize>24 if rows <= 4 else 8 * rows)
        s.chunk = max(<isize>1, min(s.T, step_rows // rows))
        return s.chunk * rows * width
    return 0
