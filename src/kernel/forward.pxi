# A pass forward: for every step, for every panel of units, for every tile of rows, the gate sums (bias, then x's k in
# order, then h's k in order) and on them, still in L1, the cell's activations and state update.
#
# A team (team.h) shares the panels, or the units: each phase of a step ends before the next begins. h is read whole by
# every part; c, the sums of x and what GRU_BEFORE keeps between its halves only by the part that wrote it.
#
# Uses layer_run, forward_args, matrix (structs), first_part, next_part, parts_of (team.h), the tile, tile_rows,
# set_operand, panel_vectors, panel_product (tile), should_stop_after (kernels), is_small, forward_small (small),
# lstm_cells, gru_cells, gru_before_gates, gru_before_cells, rnn_cells (lstm, gru, rnn).

cdef enum: PREFETCHED_ROWS = 8


# What a team shares: the first of n panels of a part, and one past the last of the part before.
cdef inline isize share(isize n, isize part, const team_member* member) noexcept nogil:
    return n * part // parts_of(member)


# Before a part that does the work of many steps: the members of a team are not to take it for lateness
# (core/threads.pxi).
cdef inline void begin_long_part(team_member* member) noexcept nogil:
    if member != NULL:
        member.long_phase, member.long_began = member.phase + 1, clock_seconds()


# Where one step finds its rows. Rows n0..active of the task run now; rows below next_active go on to the next step.
cdef struct step:
    isize index                         # which step, in processing order
    isize offset, next_offset           # packed row index of row 0, now and at the next step
    isize active, next_active
    real* h                             # the state before this step: row n at n * padded size
    real* c
    real* h_next                        # the state after it, for rows below next_active
    real* c_next
    const real* x                       # forward: this step's x, y and y_c
    real* y
    real* y_c
    const real* input_sums              # forward: W_ih x + b of this step, row n0 first, or NULL: not computed ahead;
    isize input_panel                   # panels lie input_panel apart
    const real* dy                      # backward: this step's dL/dy
    step* later                         # backward: the step taken before this one, or NULL


cdef inline void store_output(real* row, vf v, isize j, isize size) noexcept nogil:
    if j * VLEN < size:
        vstore_part(row + j * VLEN, v, size - j * VLEN)


cdef inline vf load_output(const real* row, isize j, isize size) noexcept nogil:
    return vload_part(row + j * VLEN, size - j * VLEN) if j * VLEN < size else vset(0)


# Where row n begins in an array of the caller's.
cdef inline isize row_offset(const isize* rows, isize n, isize stride) noexcept nogil:
    return rows[n] if rows != NULL else n * stride


cdef inline isize state_width(const layer_run* run) noexcept nogil:
    return run.cell.state_units * VLEN


cdef inline isize unit_width(const layer_run* run) noexcept nogil:
    return run.cell.units * VLEN


# Row n of what step t saves: packed rows of panel or unit j, `vectors` vectors each.
cdef inline isize saved_row(const layer_run* run, const step* t, isize j, isize n, isize vectors) noexcept nogil:
    CHECK(run.n0 <= n and n < run.n1 and t.offset + n < run.rows)
    return (j * run.rows + t.offset + n) * vectors * VLEN


cdef inline real* extra_row(const layer_run* run, const step* t, isize n) noexcept nogil:
    return <real*>run.extra + (t.offset + n if run.keep else n) * unit_width(run)


# Unit j of row n's new state and output.
cdef inline void store_state(forward_args* args, step* t, vf h, isize j, isize n) noexcept nogil:
    cdef isize width = state_width(&args.run)
    CHECK(args.run.n0 <= n and n < t.active and j < args.run.cell.state_units)
    vstore((t.h_next if n < t.next_active else <real*>args.h_n) + n * width + j * VLEN, h)
    if t.y != NULL:
        store_output(t.y + row_offset(args.y_rows, n, args.y_n), h, j, args.run.cell.state)


# Sets the rows and states of a step. running: rows of the whole batch that run now.
cdef inline void locate_states(layer_run* run, step* t, isize running, isize next_running) noexcept nogil:
    cdef isize width = state_width(run), units = unit_width(run)
    t.next_offset = t.offset + running
    t.active = min(running, run.n1)
    t.next_active = next_running
    if run.keep:
        t.h = <real*>run.h + t.offset * width
        t.h_next = <real*>run.h + t.next_offset * width
        t.c = <real*>run.c + t.offset * units
        t.c_next = <real*>run.c + t.next_offset * units
    else:
        t.h = <real*>run.h + (t.index & 1) * run.N * width
        t.h_next = <real*>run.h + ((t.index + 1) & 1) * run.N * width
        t.c = t.c_next = <real*>run.c


# Where step t begins in an array of the caller's, packed rows row_stride apart or steps step_stride apart.
cdef inline isize step_offset(const step* t, bint packed, isize row_stride, isize step_stride) noexcept nogil:
    return t.offset * row_stride if packed else t.index * step_stride


cdef inline void locate_rows(forward_args* args, step* t) noexcept nogil:
    cdef bint packed = args.run.packed
    t.x = <const real*>args.x + step_offset(t, args.run.lengths != NULL, args.x_n, args.x_t)
    t.y = <real*>args.y + step_offset(t, packed, args.y_n, args.y_t)
    t.y_c = <real*>args.y_c + step_offset(t, packed, args.yc_n, args.yc_t)


# W_ih x + b of panels p0..p1, `steps` steps from step `first`, to scratch as [panel][step][row][width][VLEN].
cdef int panel_sums(forward_args* args, isize first, isize steps, isize p0, isize p1) noexcept nogil:
    cdef const matrix* w = &args.run.cell.w_ih
    cdef isize P = w.width, rows = args.run.n1 - args.run.n0
    cdef isize p, outer, inner, R, outers, inners, vectors
    cdef bint along_time = rows <= 4     # full tiles: over the steps of one row, or over the rows of one step
    cdef isize outer_x = args.x_n if along_time else args.x_t, inner_x = args.x_t if along_time else args.x_n
    cdef isize outer_m = 1 if along_time else rows, inner_m = rows if along_time else 1
    cdef const real* x = <const real*>args.x + first * args.x_t + args.run.n0 * args.x_n
    cdef tile_args a
    outers = rows if along_time else steps
    inners = steps if along_time else rows
    a.init_row = 0
    a.acc_row = inner_m * P * VLEN
    a.w_step = P * VLEN
    a.operands = 1
    for p in range(p0, p1):
        a.init = <const real*>args.run.cell.bias + p * P * VLEN
        vectors = panel_vectors(w, p)
        set_operand(&a.of[0], w, p, x, inner_x, 0)
        for outer in range(outers):
            inner = 0
            while inner < inners:
                R = tile_rows(inners - inner, ROWS[vectors])
                if should_stop_after(args.run.poll, &args.run.work, R * w.depth * vectors):
                    return -1
                a.of[0].v = x + outer * outer_x + inner * inner_x
                a.acc = (<real*>args.run.scratch
                         + (p * args.chunk * rows + outer * outer_m + inner * inner_m) * P * VLEN)
                call_tile(&a, vectors, R)
                inner += R
    return 0


cdef inline int input_sums(forward_args* args, isize first, isize steps) noexcept nogil:
    return panel_sums(args, first, steps, 0, args.run.cell.w_ih.panels)


cdef inline void run_tile(const tile_args* a, isize P, isize Q, isize R) noexcept nogil:
    if Q > 1:
        call_tile_row(a, P)
    else:
        call_tile(a, P, R)


# acc[panel][row][gate] of panels p..p+Q, rows n..n+R. GRU: acc[.][.][2] is W_hn h + b_hn alone, n_input W_in x + b_in.
cdef inline void gate_sums(forward_args* args, step* t, vf* acc, vf* n_input, isize p, isize Q, isize n,
                           isize R) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef isize P = cell.w_ih.width, width = state_width(&args.run)
    cdef tile_args a
    a.acc = <real*>acc
    a.acc_row = P * VLEN
    a.acc_panel = R * P * VLEN
    a.w_step = P * VLEN
    a.operands = 0
    if t.input_sums == NULL:
        a.init = <const real*>cell.bias + p * P * VLEN
        a.init_row = 0
        a.init_panel = P * VLEN
        set_operand(&a.of[0], &cell.w_ih, p, t.x + n * args.x_n, args.x_n, 0)
        a.operands = 1
    else:
        a.init = t.input_sums + p * t.input_panel + (n - args.run.n0) * P * VLEN
        a.init_row = P * VLEN
        a.init_panel = t.input_panel
    if cell.kind == GRU or cell.kind == GRU_BEFORE:     # the input's contribution to n is accumulated separately
        if a.operands:
            run_tile(&a, P, Q, R)
            a.init = a.acc
            a.init_row = P * VLEN
            a.init_panel = a.acc_panel
        split_gru_sums(cell, &a, acc, n_input, p, Q, R)
        a.init = a.acc
        a.init_row = P * VLEN
        a.init_panel = a.acc_panel
        a.operands = 0
    set_operand(&a.of[a.operands], &cell.w_hh, p, t.h + n * width, width, 0)
    a.operands += 1
    a.w_step = cell.w_hh.width * VLEN
    run_tile(&a, cell.w_hh.width if Q > 1 else panel_vectors(&cell.w_hh, p), Q, R)


# From the input's sums of r, z, n (a.init): where the recurrent sums start. GRU: n's part moves to n_input, and b_hn
# takes its place. GRU_BEFORE adds W_hn (r h) to n's part later.
cdef inline void split_gru_sums(const packed_cell* cell, const tile_args* a, vf* acc, vf* n_input, isize p, isize Q,
                                isize R) noexcept nogil:
    cdef isize q, r, i = 0
    cdef const real* source
    for q in range(Q):
        for r in range(R):
            source = a.init + q * a.init_panel + r * 3 * VLEN
            acc[3 * i] = vload(source)
            acc[3 * i + 1] = vload(source + VLEN)
            if cell.kind == GRU:
                n_input[i] = vload(source + 2 * VLEN)
                acc[3 * i + 2] = vload(<const real*>cell.bias_n + (p + q) * VLEN)
            else:
                acc[3 * i + 2] = vload(source + 2 * VLEN)
            i += 1


# Prefetches the cache lines that rows n..n+R of panel p will be stored to, while the tile computes: in long sequences
# they come from memory, and the stores would wait for them.
cdef inline void prefetch_stores(forward_args* args, step* t, isize p, isize n, isize R) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize r, units = cell.w_ih.width if cell.kind == RNN_TANH or cell.kind == RNN_RELU else 1      # of a panel
    cdef isize first = p * units * VLEN, bytes = units * VLEN * <isize>sizeof(real)
    if t.y != NULL and cell.w_hr.data == NULL:
        for r in range(n, n + R):
            prefetch(t.y + row_offset(args.y_rows, r, args.y_n) + first, bytes)
    if run.keep:
        prefetch(<real*>run.gates + saved_row(run, t, p, n, cell.saved), R * cell.saved * VLEN * <isize>sizeof(real))
        for r in range(n, n + R):
            prefetch(t.h_next + r * state_width(run) + first, bytes)
            if cell.kind == LSTM:
                prefetch(t.c_next + r * unit_width(run) + first, bytes)


# Of a team: what other members have stored of h, and where this one will store, which they have read.
cdef inline void prefetch_states(forward_args* args, step* t, isize p0, isize p1) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef isize units = cell.w_ih.width if cell.kind == RNN_TANH or cell.kind == RNN_RELU else 1     # of a panel
    cdef isize width = state_width(&args.run), n
    for n in range(args.run.n0, min(t.active, args.run.n0 + PREFETCHED_ROWS)):
        prefetch_shared(t.h + n * width, width * <isize>sizeof(real))
        prefetch(t.h_next + n * width + p0 * units * VLEN, (p1 - p0) * units * VLEN * <isize>sizeof(real))


# The cell on its gate sums. `between`: what GRU_BEFORE hands from its first half to its second.
cdef inline void cells_plain(forward_args* args, step* t, const vf* acc, const vf* n_input, real* between, isize p,
                             isize Q, isize n, isize R) noexcept nogil:
    cdef int kind = args.run.cell.kind
    if kind == LSTM:
        lstm_cells(args, t, acc, p, Q, n, R)
    elif kind == GRU:
        gru_cells(args, t, acc, n_input, p, Q, n, R, True)
    elif kind == GRU_BEFORE:
        gru_before_gates(args, t, acc, between, p, n, R, True)
    else:
        rnn_cells(args, t, acc, p, Q, n, R, True)


cdef void cells_with_options(forward_args* args, step* t, const vf* acc, const vf* n_input, real* between, isize p,
                             isize Q, isize n, isize R) noexcept nogil:
    cdef int kind = args.run.cell.kind
    if kind == LSTM:
        lstm_cells_with_options(args, t, acc, p, Q, n, R)
    elif kind == GRU:
        gru_cells(args, t, acc, n_input, p, Q, n, R, False)
    elif kind == GRU_BEFORE:
        gru_before_gates(args, t, acc, between, p, n, R, False)
    else:
        rnn_cells(args, t, acc, p, Q, n, R, False)


# A phase of a step: what its parts do.
ctypedef int (*forward_part)(forward_args*, step*, isize) noexcept nogil


# Goes through a phase, alone or with a team.
cdef inline int forward_phase(forward_args* args, step* t, forward_part function) noexcept nogil:
    cdef isize part = first_part(args.run.member)
    while part >= 0:
        if function(args, t, part):
            return -1
        part = next_part(args.run.member, part)
    return 0 if part == PHASE_OVER else -1


cdef int forward_step(forward_args* args, step* t) noexcept nogil:
    cdef layer_run* run = &args.run
    if run.reset != NULL and forward_phase(args, t, reset_rows):
        return -1
    if forward_phase(args, t, units_part):
        return -1
    if run.cell.kind == GRU_BEFORE:
        return forward_phase(args, t, candidates_part)
    if run.cell.w_hr.data != NULL:
        return forward_phase(args, t, projection_part)
    return 0


# The gate sums and the cell of a part of the units. Every other step takes the panels backwards: it begins with the
# weights that the last one ended with, which the caches still hold where they cannot hold all.
cdef int units_part(forward_args* args, step* t, isize part) noexcept nogil:
    cdef vf[32] acc
    cdef vf[16] n_input
    cdef const packed_cell* cell = args.run.cell
    cdef isize P = cell.w_ih.width, p0 = share(cell.w_ih.panels, part, args.run.member), p, Q, n, R
    cdef isize p1 = share(cell.w_ih.panels, part + 1, args.run.member), done = p0, n0 = args.run.n0
    cdef bint one_row = t.active - n0 == 1 and cell.kind != GRU_BEFORE
    cdef real* between = <real*>args.run.scratch
    if args.run.member != NULL:
        prefetch_states(args, t, p0, p1)
    if args.chunk > 0 and t.index % args.chunk == 0:
        begin_long_part(args.run.member)
        if panel_sums(args, t.index, min(args.chunk, args.run.T - t.index), p0, p1):
            return -1
    while done < p1:
        Q = ROW_PANELS[P] if one_row and done + ROW_PANELS[P] <= p1 else 1
        p = p0 + p1 - done - Q if (t.index + args.turn) & 1 else done
        n = n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[panel_vectors(&cell.w_ih, p)])
            if should_stop_after(args.run.poll, &args.run.work, R * Q * P * (cell.input + cell.state)):
                return -1
            if Q == 1 and (t.y != NULL or args.run.keep):
                prefetch_stores(args, t, p, n, R)
            gate_sums(args, t, acc, n_input, p, Q, n, R)
            if cell.plain:
                cells_plain(args, t, acc, n_input, between, p, Q, n, R)
            else:
                cells_with_options(args, t, acc, n_input, between, p, Q, n, R)
            n += R
        done += Q
    return 0


# The second half of GRU_BEFORE's step: W_hn (r h), and on it the candidate and the new state.
cdef int candidates_part(forward_args* args, step* t, isize part) noexcept nogil:
    cdef vf[32] acc
    cdef layer_run* run = &args.run
    cdef const matrix* w = &run.cell.w_hn
    cdef const real* between = <const real*>run.scratch
    cdef isize width = unit_width(run), p, n, R
    for p in range(share(w.panels, part, run.member), share(w.panels, part + 1, run.member)):
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[1])
            if should_stop_after(run.poll, &run.work, R * w.depth):
                return -1
            panel_product(w, p, extra_row(run, t, n), width, 0, between_row(run, between, p, n) + VLEN, 2 * width,
                          <real*>acc, VLEN, R)
            if run.cell.plain:
                gru_before_cells(args, t, acc, between, p, n, R, True)
            else:
                gru_before_cells_with_options(args, t, acc, between, p, n, R)
            n += R
    return 0


# The projection of a step: h_t = W_hr m_t.
cdef int projection_part(forward_args* args, step* t, isize part) noexcept nogil:
    cdef vf[32] acc
    cdef vf[4] zero
    cdef layer_run* run = &args.run
    cdef const matrix* w = &run.cell.w_hr
    cdef isize width = unit_width(run), p, n, R, r, j
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    for p in range(share(w.panels, part, run.member), share(w.panels, part + 1, run.member)):
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, ROWS[w.width])
            if should_stop_after(run.poll, &run.work, R * w.depth * w.width):
                return -1
            panel_product(w, p, extra_row(run, t, n), width, 0, <const real*>zero, 0, <real*>acc, w.width * VLEN, R)
            for r in range(R):
                for j in range(panel_vectors(w, p)):
                    store_state(args, t, acc[r * w.width + j], p * w.width + j, n + r)
            n += R
    return 0


# Rows whose reset_mask is set start this step from zero. All before the units, which read every unit of h; in one part.
cdef int reset_rows(forward_args* args, step* t, isize part) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize n
    if part > 0:
        return 0
    for n in range(run.n0, t.active):
        if run.reset[t.offset + n]:
            memset(t.h + n * state_width(run), 0, <size_t>state_width(run) * sizeof(real))
            if run.cell.kind == LSTM:
                memset(t.c + n * unit_width(run), 0, <size_t>unit_width(run) * sizeof(real))
    return 0


# How many of `running` rows run at step `index`; lengths fall.
cdef inline isize running_rows(const layer_run* run, isize running, isize index) noexcept nogil:
    if run.lengths != NULL:
        while running > 0 and run.lengths[running - 1] <= index:
            running -= 1
    return running


cdef int forward(void* argument) noexcept nogil:
    cdef forward_args* args = <forward_args*>argument
    cdef step t
    cdef layer_run* run = &args.run
    cdef isize running = run.N, next_running, rows = run.n1 - run.n0, P = run.cell.w_ih.width
    check_run(run)
    if run.member == NULL and is_small(args):
        return forward_small(args)
    t.offset = 0
    t.input_sums = NULL
    t.input_panel = args.chunk * rows * P * VLEN
    for t.index in range(run.T):
        running = running_rows(run, running, t.index)
        next_running = running_rows(run, running, t.index + 1) if t.index + 1 < run.T else 0
        if running <= run.n0:
            break
        locate_states(run, &t, running, next_running)
        locate_rows(args, &t)
        if args.chunk > 0:
            t.input_sums = <const real*>run.scratch + (t.index % args.chunk) * rows * P * VLEN
        if forward_step(args, &t):
            return -1
        t.offset = t.next_offset
    return 0


# What every pass relies on; tested in debug builds alone.
cdef inline void check_run(const layer_run* run) noexcept nogil:
    CHECK(0 <= run.n0 and run.n0 <= run.n1 and run.n1 <= run.N and run.rows <= run.T * run.N)
    CHECK(run.h != NULL and (run.cell.kind != LSTM or run.c != NULL) and (not run.keep or run.gates != NULL))
    CHECK(run.extra != NULL or run.cell.kind != GRU_BEFORE and run.cell.w_hr.data == NULL)
    CHECK(<size_t>run.h % sizeof(vf) == 0 and <size_t>run.gates % sizeof(vf) == 0)


cdef enum: L2 = 786432      # bytes of weights that may be expected to stay in a core's L2 cache


# The input's part is worth a pass of its own where a step has too few rows to fill a tile, or where the weights exceed
# L2 and reading W_ih once for many steps saves half of the traffic. Not for ragged rows, which lie too irregularly. Of
# a team, each thread's share of the weights and of the sums counts.
cdef isize plan_forward(forward_args* args) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize rows = run.n1 - run.n0, width = cell.w_ih.panels * cell.w_ih.width * VLEN
    cdef isize share_width = width // parts_of(run.member)
    cdef isize weights = (cell.w_ih.depth + cell.w_hh.depth) * share_width * <isize>sizeof(real)
    cdef isize step_rows
    args.chunk = 0
    if rows == 0 or run.member == NULL and is_small(args) and (cell.w_ih.panels <= SMALL_AHEAD or run.T == 1):
        return 0
    if cell.kind == GRU_BEFORE:
        return rows * cell.units * 2 * VLEN
    if run.lengths == NULL and run.T > 1 and cell.input > 8 and (rows <= 4 or weights > L2):
        step_rows = max(<isize>L2 // 2 // (share_width * <isize>sizeof(real)), <isize>24 if rows <= 4 else 8 * rows)
        args.chunk = max(<isize>1, min(run.T, step_rows // rows))
        return args.chunk * rows * width
    return 0
