# The kernels of narrow weights, int8 and bfloat16, of one instruction set: a table for each, which core uses as it uses
# the float table.
#
# Inputs, states and outputs are float32 as ever; weights are narrow. A pass is that of forward.pxi with another way to
# the gate sums: every row of x and h is narrowed once a step, the integer tile or the tile of pairs sums the products,
# and on its results, floats again, run the same cells.
#
# A team shares the panels as in forward.pxi. Each part of a phase narrows all rows for itself, into memory of its
# own: that costs less than a barrier after which all could read the same numbers.
#
# Uses layer_run, forward_args, matrix, product (structs), the integer tile, step, share, forward_phase, locate_states,
# locate_rows, running_rows, reset_rows, prefetch_stores, prefetch_states, cells_plain, cells_with_options,
# split_gru_sums, store_state (forward), between_row, extra_row (gru), tile_args, tile_rows (tile), parts_of (team.h),
# should_stop_after (kernels).

# Rows that are quantised or rounded: row r begins at data + r * row. [call]
cdef struct narrow_rows:
    signed char* data
    isize row                       # bytes
    real* scale                     # int8

include "integer_tile.pxi"
include "pair_tile.pxi"
include "narrow_row.pxi"

cdef extern from "machine.h" nogil:
    bint cpu_has_dot()
    bint cpu_has_pairs()


# ---- Products of either precision ----------------------------------------------------------------

# Whether weights are int8; else they are bfloat16.
cdef inline bint is_integer(const matrix* w) noexcept nogil:
    return w.scale != NULL


# Bytes of a narrowed row that w is multiplied with.
cdef inline isize narrow_row(const matrix* w) noexcept nogil:
    return quantised_row(w.depth) if is_integer(w) else rounded_row(w.depth, w.fast)


# Narrows R rows, v_row apart, for products with w.
cdef inline void narrow(const matrix* w, const real* v, isize v_row, isize R, const narrow_rows* out) noexcept nogil:
    if is_integer(w):
        quantise_rows(w, v, v_row, R, out)
    else:
        round_rows(v, v_row, w.depth, R, out.data, out.row, w.fast)


# The most rows of a tile.
cdef inline isize most_rows(const matrix* w) noexcept nogil:
    return DOT_ROWS[w.width] if is_integer(w) else ROWS[w.width]


# Vector operations of one row's product with a panel.
cdef inline isize panel_work(const matrix* w) noexcept nogil:
    return w.depth * w.width // (GROUP if is_integer(w) else 2)


cdef inline isize step_work(const packed_cell* cell) noexcept nogil:
    return panel_work(&cell.w_ih) + panel_work(&cell.w_hh)


# out[r][q] = init[r][q] + panel p of w times row r of v, for R rows from row `first` of v.
cdef inline void narrow_product(const matrix* w, isize p, const narrow_rows* v, isize first, const real* init,
                                isize init_row, real* out, isize out_row, isize R) noexcept nogil:
    if is_integer(w):
        integer_product(w, p, v, first, init, init_row, out, out_row, R)
    else:
        pair_product(w, p, v, first, init, init_row, out, out_row, R)


# The same of row `first` alone and panels p0..p1 of w, whose starts lie init_panel apart: the weights are read in one
# go.
cdef inline void narrow_row_product(const matrix* w, isize p0, isize p1, const narrow_rows* v, isize first,
                                    const real* init, isize init_panel, real* out, bint backwards) noexcept nogil:
    if is_integer(w):
        integer_row_product(w, p0, p1, v, first, init, init_panel, out, backwards)
    else:
        pair_row_product(w, p0, p1, v, first, init, init_panel, out, backwards)


# ---- A pass --------------------------------------------------------------------------------------

cdef enum: PAIR_ROWS = 12       # rows from which products of bfloat16 take longer than reading the weights past L2
cdef enum: WIDENED_ROWS = 12    # rows from which a panel of bfloat16 weights is widened once for all
cdef enum: ROW_BLOCK = 24       # rows whose products with a panel of W_ih are taken before those with W_hh: the weights
#                                 of one of them, and these sums, stay in L1

# What a part of a phase keeps in its task's or team's scratch: floats that each part has its panels of; then, for each
# part, rows of its own.
cdef struct narrow_scratch:
    real* floats                    # args.chunk > 0: W_ih x + b as [panel][step][row][width][VLEN]; GRU_BEFORE: what
    #                                 gru.pxi calls `between`
    narrow_rows x                   # [args.chunk, or 1][row]
    narrow_rows h                   # [row]
    narrow_rows extra               # [row]: r h or m, where the cell has W_hn or W_hr
    real* widened_ih                # a panel of W_ih and one of W_hh, widened to floats; or NULL
    real* widened_hh
    real* sums                      # one row: [panel][width][VLEN], and again; then n_input of a GRU, [panel][VLEN]


# Whether products of so many rows are those of the float32 tile, with panels that are widened once for all of them.
cdef inline bint widens(const matrix* w, isize rows) noexcept nogil:
    return not is_integer(w) and not (HAS_PAIRS and w.fast) and rows >= WIDENED_ROWS


cdef inline isize widened_size(const matrix* w) noexcept nogil:
    return (w.depth + 1) // 2 * 2 * w.width * VLEN


# Gives `rows`, which are multiplied with w, their place behind the first `used` elements of scratch; returns how many
# are used then.
cdef inline isize place_rows(narrow_rows* rows, const forward_args* args, isize used, isize count,
                             const matrix* w) noexcept nogil:
    cdef real* at = <real*>args.run.scratch + used
    rows.row = narrow_row(w)
    rows.data = <signed char*>at
    used += count * rows.row // <isize>sizeof(real)
    rows.scale = <real*>args.run.scratch + used
    return used + (count + 15) // 16 * 16


# Lays out what one part keeps, behind the first `used` elements; returns how many are used then.
cdef inline isize place_part(const forward_args* args, narrow_scratch* s, isize used) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef isize rows = args.run.n1 - args.run.n0
    used = place_rows(&s.x, args, used, max(args.chunk, <isize>1) * rows, &cell.w_ih)
    used = place_rows(&s.h, args, used, rows, &cell.w_hh)
    if cell.w_hr.data != NULL or cell.w_hn.data != NULL:
        used = place_rows(&s.extra, args, used, rows, &cell.w_hr if cell.w_hr.data != NULL else &cell.w_hn)
    s.widened_ih = s.widened_hh = NULL
    if widens(&cell.w_hh, rows):
        s.widened_ih = <real*>args.run.scratch + used
        s.widened_hh = s.widened_ih + widened_size(&cell.w_ih)
        used += widened_size(&cell.w_ih) + widened_size(&cell.w_hh)
    s.sums = <real*>args.run.scratch + used
    return used + cell.w_ih.panels * (2 * cell.w_ih.width + 1) * VLEN


# Finds the scratch of a part. Returns the size of the scratch in elements if this is the last part.
cdef isize place_scratch(const forward_args* args, narrow_scratch* s, isize part) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef isize rows = args.run.n1 - args.run.n0, used = 0, size
    s.floats = <real*>args.run.scratch
    if cell.kind == GRU_BEFORE:
        used = rows * cell.units * 2 * VLEN
    elif args.chunk > 0:
        used = args.chunk * rows * cell.w_ih.panels * cell.w_ih.width * VLEN
    used = (used + 15) // 16 * 16
    size = place_part(args, s, used) - used
    if part > 0:
        place_part(args, s, used + part * size)
    return used + (part + 1) * size


# As plan_forward: a pass of its own over the inputs pays where a step has too few rows to fill a tile; or where
# bfloat16 weights exceed L2 and few rows make them take longer to read than to multiply. Else the sums of many steps
# would be more bytes than the weights that are read again without it.
cdef isize plan_narrow(forward_args* args) noexcept nogil:
    cdef narrow_scratch s
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize rows = run.n1 - run.n0, parts = parts_of(run.member)
    cdef isize share_width = cell.w_ih.panels * cell.w_ih.width * VLEN // parts, weights = 0, step_rows
    if not is_integer(&cell.w_ih) and rows < PAIR_ROWS:
        weights = 2 * (cell.w_ih.depth + cell.w_hh.depth) * share_width         # bytes
    args.chunk = 0
    if rows == 0:
        return 0
    if run.lengths == NULL and run.T > 1 and cell.kind != GRU_BEFORE and (rows <= 4 or weights > L2):
        step_rows = max(<isize>L2 // 2 // (share_width * <isize>sizeof(real)), <isize>24 if rows <= 4 else 8 * rows)
        args.chunk = max(<isize>1, min(run.T, step_rows // rows))
    return place_scratch(args, &s, parts - 1)


# W_ih x + b of `steps` steps from step `first`, panels p0..p1.
cdef int narrow_input_sums(forward_args* args, const narrow_scratch* s, isize first, isize steps, isize p0,
                           isize p1) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef const matrix* w = &cell.w_ih
    cdef isize P = w.width, rows = args.run.n1 - args.run.n0, p, m, R, t
    cdef narrow_rows x = s.x
    for t in range(steps):
        narrow(w, <const real*>args.x + (first + t) * args.x_t + args.run.n0 * args.x_n, args.x_n, rows, &x)
        x.data += rows * x.row
        x.scale += rows
    for p in range(p0, p1):
        m = 0
        while m < steps * rows:
            R = tile_rows(steps * rows - m, most_rows(w))
            if should_stop_after(args.run.poll, &args.run.work, R * panel_work(w)):
                return -1
            narrow_product(w, p, &s.x, m, <const real*>cell.bias + p * P * VLEN, 0,
                           s.floats + (p * args.chunk * rows + m) * P * VLEN, P * VLEN, R)
            m += R
    return 0


# The product of a panel, which may have been widened, with R rows from row `first` of v.
cdef inline void panel_rows_product(const matrix* w, const real* widened, isize p, const narrow_rows* v, isize first,
                                    const real* init, isize init_row, real* out, isize out_row,
                                    isize R) noexcept nogil:
    if widened != NULL:
        widened_product(w, widened, v, first, init, init_row, out, out_row, R)
    else:
        narrow_product(w, p, v, first, init, init_row, out, out_row, R)


# acc[row][gate] of panel p, rows n..n+R, as gate_sums gives them, from the input's sums of these rows.
cdef inline void narrow_gate_sums(forward_args* args, const narrow_scratch* s, const real* input_sums, vf* acc,
                                  vf* n_input, isize p, isize n, isize R, bint widened) noexcept nogil:
    cdef vf[32] start
    cdef const packed_cell* cell = args.run.cell
    cdef isize P = cell.w_ih.width, i
    cdef tile_args a
    a.init = input_sums
    if cell.kind == GRU or cell.kind == GRU_BEFORE:
        a.init_panel = 0
        split_gru_sums(cell, &a, start, n_input, p, 1, R)
        a.init = <const real*>start
    panel_rows_product(&cell.w_hh, s.widened_hh if widened else NULL, p, &s.h, n - args.run.n0, a.init, P * VLEN,
                       <real*>acc, P * VLEN, R)
    if cell.kind == GRU_BEFORE:
        for i in range(R):
            acc[3 * i + 2] = start[3 * i + 2]


# A step of the one row n, panels p0..p1: the sums of all panels, then all cells. Its weights are the most that a step
# reads, and they are read in one go.
cdef int narrow_row_step(forward_args* args, step* t, const narrow_scratch* s, isize n, isize p0,
                         isize p1) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef isize P = cell.w_ih.width, size = (p1 - p0) * P * VLEN, row = n - args.run.n0
    cdef bint backwards = (t.index + args.turn) & 1
    cdef vf* acc = <vf*>s.sums
    cdef vf* n_input = <vf*>(s.sums + 2 * size)
    cdef tile_args a
    if should_stop_after(args.run.poll, &args.run.work, (p1 - p0) * step_work(cell)):
        return -1
    a.init, a.init_panel = s.sums, P * VLEN
    if t.input_sums == NULL:
        narrow_row_product(&cell.w_ih, p0, p1, &s.x, row, <const real*>cell.bias + p0 * P * VLEN, P * VLEN, s.sums,
                           backwards)
    else:
        a.init, a.init_panel = t.input_sums + p0 * t.input_panel, t.input_panel
    if cell.kind == GRU:
        split_gru_sums(cell, &a, <vf*>(s.sums + size), n_input, p0, p1 - p0, 1)
        a.init, a.init_panel = s.sums + size, P * VLEN
    else:
        acc = <vf*>(s.sums + size)
    narrow_row_product(&cell.w_hh, p0, p1, &s.h, row, a.init, a.init_panel, <real*>acc, backwards)
    if cell.plain:
        cells_plain(args, t, acc, n_input, s.floats, p0, p1 - p0, n, 1)
    else:
        cells_with_options(args, t, acc, n_input, s.floats, p0, p1 - p0, n, 1)
    return 0


# The same of a plain cell.
cdef int narrow_plain_row_step(forward_args* args, step* t, const narrow_scratch* s, isize n, isize p0,
                               isize p1) noexcept nogil:
    cdef const packed_cell* cell = args.run.cell
    cdef isize width = state_width(&args.run), units = unit_width(&args.run)
    cdef bint ends = n >= t.next_active
    cdef narrow_step_row row
    if should_stop_after(args.run.poll, &args.run.work, (p1 - p0) * step_work(cell)):
        return -1
    row.at.cell, row.at.x, row.at.backwards = cell, t.x + n * args.x_n, (t.index + args.turn) & 1
    row.at.input_sums, row.at.input_panel = t.input_sums, t.input_panel
    row.at.h, row.at.c = t.h + n * width, t.c + n * units
    row.at.c_n = (<real*>args.c_n if ends else t.c_next) + n * units
    row.h_n = <vf*>((<real*>args.h_n if ends else t.h_next) + n * width)
    row.y = NULL if t.y == NULL else t.y + row_offset(args.y_rows, n, args.y_n)
    narrow_step_operands(&row, s.x.data, s.h.data)
    step_panels(&row, p0, p1)
    return 0


# The same of panel p and rows n..n+count, at most ROW_BLOCK.
cdef int narrow_rows_step(forward_args* args, step* t, const narrow_scratch* s, isize p, isize n, isize count,
                          bint widened) noexcept nogil:
    cdef vf[4 * ROW_BLOCK] sums
    cdef vf[32] acc
    cdef vf[16] n_input
    cdef const packed_cell* cell = args.run.cell
    cdef isize P = cell.w_ih.width, row = n - args.run.n0, m = 0, R
    cdef const real* input_sums = <const real*>sums
    cdef bint at_once = (t.input_sums == NULL and not is_integer(&cell.w_ih) and not widened and cell.kind != GRU
                         and cell.kind != GRU_BEFORE)       # one sum over x and h
    if t.input_sums != NULL:
        input_sums = t.input_sums + p * t.input_panel + row * P * VLEN
    elif not at_once:
        while m < count:
            R = tile_rows(count - m, most_rows(&cell.w_ih))
            panel_rows_product(&cell.w_ih, s.widened_ih if widened else NULL, p, &s.x, row + m,
                               <const real*>cell.bias + p * P * VLEN, 0, <real*>(sums + m * P), P * VLEN, R)
            m += R
    m = 0
    while m < count:
        R = tile_rows(count - m, most_rows(&cell.w_ih))
        if should_stop_after(args.run.poll, &args.run.work, R * step_work(cell)):
            return -1
        if t.y != NULL or args.run.keep:
            prefetch_stores(args, t, p, n + m, R)
        if at_once:
            pair_products(&cell.w_ih, &cell.w_hh, p, &s.x, &s.h, row + m, <const real*>cell.bias + p * P * VLEN,
                          <real*>acc, P * VLEN, R)
        else:
            narrow_gate_sums(args, s, input_sums + m * P * VLEN, acc, n_input, p, n + m, R, widened)
        if cell.plain:
            cells_plain(args, t, acc, n_input, s.floats, p, 1, n + m, R)
        else:
            cells_with_options(args, t, acc, n_input, s.floats, p, 1, n + m, R)
        m += R
    return 0


# As units_part.
cdef int narrow_units_part(forward_args* args, step* t, isize part) noexcept nogil:
    cdef narrow_scratch s
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize p0 = share(cell.w_ih.panels, part, run.member), p1 = share(cell.w_ih.panels, part + 1, run.member)
    cdef isize n0 = run.n0, width = state_width(run), i, p, n, count
    cdef bint widened = widens(&cell.w_hh, t.active - n0)
    place_scratch(args, &s, part)
    if run.member != NULL:
        prefetch_states(args, t, p0, p1)
    if args.chunk > 0 and t.index % args.chunk == 0:
        begin_long_part(run.member)
        if narrow_input_sums(args, &s, t.index, min(args.chunk, run.T - t.index), p0, p1):
            return -1
    if t.active - n0 == 1 and is_plain_row_cell(cell) and args.y_c == NULL and not run.keep:
        return narrow_plain_row_step(args, t, &s, n0, p0, p1)
    narrow(&cell.w_hh, t.h + n0 * width, width, t.active - n0, &s.h)
    if t.input_sums == NULL:
        narrow(&cell.w_ih, t.x + n0 * args.x_n, args.x_n, t.active - n0, &s.x)
    if t.active - n0 == 1 and cell.kind != GRU_BEFORE:
        return narrow_row_step(args, t, &s, n0, p0, p1)
    for i in range(p1 - p0):
        p = p1 - 1 - i if (t.index + args.turn) & 1 else p0 + i
        if widened:
            widen_panel(&cell.w_hh, p, s.widened_hh)
            if t.input_sums == NULL:
                widen_panel(&cell.w_ih, p, s.widened_ih)
        n = n0
        while n < t.active:
            count = tile_rows(t.active - n, ROW_BLOCK)
            if narrow_rows_step(args, t, &s, p, n, count, widened):
                return -1
            n += count
    return 0


# As candidates_part: W_hn (r h), and on it the candidate and the new state.
cdef int narrow_candidates_part(forward_args* args, step* t, isize part) noexcept nogil:
    cdef vf[32] acc
    cdef narrow_scratch s
    cdef layer_run* run = &args.run
    cdef const matrix* w = &run.cell.w_hn
    cdef isize width = unit_width(run), p, n, R
    place_scratch(args, &s, part)
    narrow(w, extra_row(run, t, run.n0), width, t.active - run.n0, &s.extra)
    for p in range(share(w.panels, part, run.member), share(w.panels, part + 1, run.member)):
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, most_rows(w))
            if should_stop_after(run.poll, &run.work, R * panel_work(w)):
                return -1
            narrow_product(w, p, &s.extra, n - run.n0, between_row(run, s.floats, p, n) + VLEN,
                           run.cell.units * 2 * VLEN, <real*>acc, VLEN, R)
            if run.cell.plain:
                gru_before_cells(args, t, acc, s.floats, p, n, R, True)
            else:
                gru_before_cells_with_options(args, t, acc, s.floats, p, n, R)
            n += R
    return 0


# As projection_part: h_t = W_hr m_t.
cdef int narrow_projection_part(forward_args* args, step* t, isize part) noexcept nogil:
    cdef vf[32] acc
    cdef vf[4] zero
    cdef narrow_scratch s
    cdef layer_run* run = &args.run
    cdef const matrix* w = &run.cell.w_hr
    cdef isize P = w.width, p, n, R, r, j
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    place_scratch(args, &s, part)
    narrow(w, extra_row(run, t, run.n0), unit_width(run), t.active - run.n0, &s.extra)
    for p in range(share(w.panels, part, run.member), share(w.panels, part + 1, run.member)):
        n = run.n0
        while n < t.active:
            R = tile_rows(t.active - n, most_rows(w))
            if should_stop_after(run.poll, &run.work, R * panel_work(w)):
                return -1
            narrow_product(w, p, &s.extra, n - run.n0, <const real*>zero, 0, <real*>acc, P * VLEN, R)
            for r in range(R):
                for j in range(P):
                    store_state(args, t, acc[r * P + j], p * P + j, n + r)
            n += R
    return 0


# As forward_step.
cdef int narrow_step(forward_args* args, step* t) noexcept nogil:
    cdef layer_run* run = &args.run
    if run.reset != NULL and forward_phase(args, t, reset_rows):
        return -1
    if forward_phase(args, t, narrow_units_part):
        return -1
    if run.cell.kind == GRU_BEFORE:
        return forward_phase(args, t, narrow_candidates_part)
    if run.cell.w_hr.data != NULL:
        return forward_phase(args, t, narrow_projection_part)
    return 0


# Whether a pass is one that forward_narrow_row does: one row of a plain cell, without lengths, resets or other outputs.
cdef inline bint is_narrow_row(const forward_args* args) noexcept nogil:
    cdef const layer_run* run = &args.run
    return (run.member == NULL and run.n1 - run.n0 == 1 and is_plain_row_cell(run.cell) and run.lengths == NULL
            and run.reset == NULL and args.y_c == NULL and not run.keep)


# A whole pass of one row: a walk over its steps. h_n and c_n are written, h and c only read.
cdef int forward_narrow_row(forward_args* args) noexcept nogil:
    cdef narrow_scratch s
    cdef narrow_step_row row
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize n = run.n0, P = cell.w_ih.width, units = n * unit_width(run), state = n * state_width(run), t
    place_scratch(args, &s, 0)
    row.at.cell, row.at.input_sums, row.at.input_panel = cell, NULL, args.chunk * P * VLEN
    row.at.h, row.h_n = <const real*>run.h + state, <vf*>(<real*>args.h_n + state)
    row.at.c, row.at.c_n = <const real*>run.c + units, <real*>args.c_n + units
    for t in range(run.T):
        if should_stop_after(run.poll, &run.work, cell.w_ih.panels * step_work(cell)):
            return -1
        if args.chunk > 0:
            if t % args.chunk == 0 and narrow_input_sums(args, &s, t, min(args.chunk, run.T - t), 0, cell.w_ih.panels):
                return -1
            row.at.input_sums = s.floats + t % args.chunk * P * VLEN
        row.at.x = <const real*>args.x + t * args.x_t + n * args.x_n
        row.at.backwards = (t + args.turn) & 1
        row.y = NULL if args.y == NULL else <real*>args.y + t * args.y_t + n * args.y_n
        narrow_step_operands(&row, s.x.data, s.h.data)
        step_panels(&row, 0, cell.w_ih.panels)
        row.at.h, row.at.c = <const real*>row.h_n, row.at.c_n
    return 0


cdef int forward_narrow(void* argument) noexcept nogil:
    cdef forward_args* args = <forward_args*>argument
    cdef step t
    cdef layer_run* run = &args.run
    cdef isize running = run.N, next_running, rows = run.n1 - run.n0, P = run.cell.w_ih.width
    check_run(run)
    if is_narrow_row(args):
        return forward_narrow_row(args)
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
        if narrow_step(args, &t):
            return -1
        t.offset = t.next_offset
    return 0


# out[m][o] = bias[o] + sum over k of left[m][k] w[k][o] for rows m0..m1, as `multiply`.
cdef int multiply_narrow(void* argument) noexcept nogil:
    cdef product* args = <product*>argument
    cdef vf[32] acc
    cdef vf[4] zero
    cdef const matrix* w = args.w
    cdef isize P = w.width, p, m = args.m0, R, r, q, first
    cdef const real* bias = <const real*>args.bias
    cdef narrow_rows v
    v.row = narrow_row(w)
    v.scale = <real*>args.scratch
    v.data = <signed char*>(v.scale + 16)
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    while m < args.m1:
        R = tile_rows(args.m1 - m, most_rows(w))
        narrow(w, <const real*>args.left + m * args.left_row, args.left_row, R, &v)
        for p in range(w.panels):
            if should_stop_after(args.poll, &args.work, R * panel_work(w)):
                return -1
            narrow_product(w, p, &v, 0, bias + p * P * VLEN if bias != NULL else <const real*>zero, 0, <real*>acc,
                           P * VLEN, R)
            for r in range(R):
                for q in range(P):
                    first = (p * P + q) * VLEN
                    if first < args.columns:
                        vstore_part(<real*>args.out + (m + r) * args.out_row + first, acc[r * P + q],
                                    args.columns - first)
        m += R
    return 0


# Elements of scratch that multiply_narrow needs: 16 scales, and the narrowed rows of a tile.
cdef isize plan_multiply_narrow(const matrix* w) noexcept nogil:
    return 16 + most_rows(w) * narrow_row(w) // <isize>sizeof(real)


# ---- The tables ----------------------------------------------------------------------------------

cdef kernel_table INT8_TABLE
INT8_TABLE = TABLE
INT8_TABLE.forward = forward_narrow
INT8_TABLE.small_step = narrow_small_step
INT8_TABLE.plan_forward = plan_narrow
INT8_TABLE.backward = NULL
INT8_TABLE.plan_backward = NULL
INT8_TABLE.accumulate = NULL
INT8_TABLE.multiply = multiply_narrow
INT8_TABLE.plan_multiply = plan_multiply_narrow

cdef kernel_table BFLOAT16_TABLE
BFLOAT16_TABLE = INT8_TABLE
BFLOAT16_TABLE.pack_weights = pack_pairs
BFLOAT16_TABLE.weight_size = BFLOAT16_TABLE.group = 2
BFLOAT16_TABLE.has_dot = BFLOAT16_TABLE.fast = HAS_PAIRS and cpu_has_pairs()

INT8_TABLE.pack_weights = pack_narrow
INT8_TABLE.weight_size = 1
INT8_TABLE.group = GROUP
INT8_TABLE.has_dot = INT8_TABLE.fast = HAS_DOT and cpu_has_dot()

int8_table = PyCapsule_New(&INT8_TABLE, "fastrnn.kernel_table", NULL)
bfloat16_table = PyCapsule_New(&BFLOAT16_TABLE, "fastrnn.kernel_table", NULL)
