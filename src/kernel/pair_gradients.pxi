# Backward passes whose products have bfloat16 operands: weights, gate gradients, inputs and states are rounded where a
# product takes them. Sums, states, gradients and everything elementwise are float32, and the sums of biases are of gate
# gradients that are not rounded.
#
# The product of a row (dgates W_hh, dgates W_ih) pairs neighbours of the summed index, as forward does. That of weight
# gradients sums over the rows of the batch, and pairs two rows.
#
# Uses layer_run, backward_args, matrix, product, outer_product, parts_of (structs), step, load_output (forward),
# step_rows, round_step_rows, pairs_panel_product, second_rows, plan_backward (backward), tile_rows, ROWS (tile),
# pair_args, call_pairs, HAS_PAIRS (pair_tile), BFLOAT16_TABLE (narrow), should_stop_after (kernels).

cdef extern from "pairs.h" nogil:
    vf pair_lanes(vf a, vf b, const int fast)
    void store_neighbours(real* p, vf a, vf b, const int fast)
    void store_lanes(real* p, vf a, vf b, const int fast)


# ---- Rows ----------------------------------------------------------------------------------------

# Elements that hold a row of n numbers, rounded: whole vectors of pairs, or without the CPU's instruction of floats.
cdef inline isize pairs_row(isize n, bint fast) noexcept nogil:
    cdef isize vectors = (n + 2 * VLEN - 1) // (2 * VLEN)
    return vectors * VLEN if fast else 2 * vectors * VLEN


# The numbers of the summed index of w; what follows them is padding, which nobody has written.
cdef inline isize summed(const matrix* w) noexcept nogil:
    return (w.outer - 1) * w.depth + w.last


# A row's numbers for w, blocks of its summed index v_outer apart, one after the other. With several blocks, depth is a
# number of whole vectors. What follows them in the last pairs is 0.
cdef inline void round_blocks(const matrix* w, real* out, const real* v, isize v_outer, const int fast) noexcept nogil:
    cdef isize o, k, depth = w.depth
    cdef bint waits = False
    cdef vf x, first = vset(0)
    for o in range(w.outer):
        if o == w.outer - 1:
            depth = w.last
        for k in range((depth + VLEN - 1) // VLEN):
            x = load_output(v, k, depth)
            if waits:
                store_neighbours(out, first, x, fast)
                out += VLEN if fast else 2 * VLEN
            first = x
            waits = not waits
        v += v_outer
    if waits:
        store_neighbours(out, first, vset(0), fast)


# Rows m < rows of v, v_row apart, rounded for products with w.
cdef void round_for(const matrix* w, real* out, const real* v, isize v_row, isize v_outer, isize rows) noexcept nogil:
    cdef isize m, out_row = pairs_row(summed(w), w.fast)
    for m in range(rows):
        if HAS_PAIRS and w.fast:
            round_blocks(w, out + m * out_row, v + m * v_row, v_outer, HAS_PAIRS)
        else:
            round_blocks(w, out + m * out_row, v + m * v_row, v_outer, False)


# out[r][q] = init[r][q] + panel p of w times row r of v, r < rows, where v is rounded.
cdef void rounded_product(const matrix* w, isize p, const real* v, isize v_row, const real* init, isize init_row,
                          real* out, isize out_row, isize rows) noexcept nogil:
    cdef pair_args a
    cdef isize r = 0, R
    a.out_row = out_row
    a.init_row = init_row
    a.operands = 1
    a.of[0].pairs = (summed(w) + 1) // 2
    a.of[0].w = <const unsigned short*>w.data + p * ((w.outer * w.depth + 1) // 2) * w.width * 2 * VLEN
    a.of[0].v_row = v_row * <isize>sizeof(real)
    a.of[0].v_step = sizeof(real) if w.fast else 2 * sizeof(real)
    while r < rows:
        R = tile_rows(rows - r, ROWS[w.width])
        a.out = out + r * out_row
        a.init = init + r * init_row
        a.of[0].v = <const signed char*>(v + r * v_row)
        call_pairs(&a, w.width, R, w.fast)
        r += R


# ---- Backward ------------------------------------------------------------------------------------

# Elements of the rounded rows of one part of a step.
cdef inline isize rounded_rows(const layer_run* run) noexcept nogil:
    cdef const packed_cell* cell = run.cell
    cdef isize K = max(summed(&cell.w_hh_t), max(summed(&cell.w_hn_t), summed(&cell.w_hr_t)))
    return (run.n1 - run.n0) * pairs_row(K, cell.w_hh_t.fast)


# As plan_backward, with room for the rounded rows of each part.
cdef isize plan_backward_pairs(backward_args* args) noexcept nogil:
    args.run.pairs = True
    return plan_backward(args) + parts_of(args.run.member) * rounded_rows(&args.run)


# Rounds the rows n0..active of a step for products with w.
cdef void round_rows_of_step(layer_run* run, const step* t, const matrix* w, isize part,
                             step_rows* rows) noexcept nogil:
    cdef isize row = pairs_row(summed(w), w.fast)
    cdef real* rounded = <real*>run.scratch + second_rows(run) + part * rounded_rows(run)
    round_for(w, rounded, rows.v + run.n0 * rows.v_row, rows.v_row, rows.v_outer, t.active - run.n0)
    rows.v, rows.v_row = rounded - run.n0 * row, row


round_step_rows = round_rows_of_step
pairs_panel_product = rounded_product


# ---- Products over a whole batch -----------------------------------------------------------------

cdef enum: ROUNDED_ROWS = 48        # rows that are rounded at once


cdef isize plan_multiply_rounded(const matrix* w) noexcept nogil:
    return ROUNDED_ROWS * pairs_row(summed(w), w.fast)


# As multiply.
cdef int multiply_rounded(void* argument) noexcept nogil:
    cdef product* args = <product*>argument
    cdef vf[32] acc
    cdef vf[4] zero
    cdef const matrix* w = args.w
    cdef isize P = w.width, row = pairs_row(summed(w), w.fast), m0 = args.m0
    cdef isize p, m, rows, R
    cdef const real* bias = <const real*>args.bias
    cdef real* rounded = <real*>args.scratch
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    while m0 < args.m1:
        rows = min(<isize>ROUNDED_ROWS, args.m1 - m0)
        round_for(w, rounded, <const real*>args.left + m0 * args.left_row, args.left_row, args.left_outer, rows)
        for p in range(w.panels):
            m = 0
            while m < rows:
                R = tile_rows(rows - m, ROWS[P])
                if should_stop_after(args.poll, &args.work, R * summed(w) // 2 * P):
                    return -1
                rounded_product(w, p, rounded + m * row, row, bias + p * P * VLEN if bias != NULL
                                else <const real*>zero, 0, <real*>acc, P * VLEN, R)
                store_rows(args, acc, p, m0 + m, R)
                m += R
        m0 += rows
    return 0


cdef inline void store_rows(product* args, const vf* acc, isize p, isize m, isize R) noexcept nogil:
    cdef isize P = args.w.width, r, q, first
    for r in range(R):
        for q in range(P):
            first = (p * P + q) * VLEN
            if first < args.columns:
                vstore_part(<real*>args.out + (m + r) * args.out_row + first, acc[r * P + q], args.columns - first)


# Pairs of rows of a panel of `right` that stay in L1 while `left` passes over them; and of the last block, at most.
cdef enum: PAIRS_BLOCK = 96, LAST_PAIRS = 112


# From one pair of rows of `left` to the next: an odd number of vectors, since with a power of two all pairs would share
# a few sets of the L1 cache.
cdef inline isize left_width(isize depth, bint fast) noexcept nogil:
    cdef isize vectors = (depth + VLEN - 1) // VLEN * (1 if fast else 2)
    return (vectors | 1) * VLEN


# Elements of scratch: a block of pairs of rows of `left`, and of one panel of `right`.
cdef isize plan_accumulate_pairs(const outer_product* args) noexcept nogil:
    return LAST_PAIRS * (left_width(args.depth, args.fast) + args.width * VLEN)


# Pairs of the rows m and m + 1 of v; a last row without a neighbour is paired with 0. As the tile's numbers v.
cdef inline void pair_left(real* out, isize out_row, const real* v, isize v_row, isize columns, isize rows,
                           const int fast) noexcept nogil:
    cdef isize m, k, vectors = (columns + VLEN - 1) // VLEN, vector = VLEN if fast else 2 * VLEN
    cdef vf second
    for m in range((rows + 1) // 2):
        for k in range(vectors):
            second = load_output(v + v_row, k, columns) if 2 * m + 1 < rows else vset(0)
            store_lanes(out + k * vector, load_output(v, k, columns), second, fast)
        v += 2 * v_row
        out += out_row


# The same as the tile's weights, P vectors wide, and the sums of the rows in `total`, in the rows' order.
cdef inline void pair_right(real* out, const real* v, isize v_row, isize rows, real* total, const int P,
                            const int fast) noexcept nogil:
    cdef vf[4] sums
    cdef vf a, b
    cdef isize m, q
    for q in range(P):
        sums[q] = vload(total + q * VLEN) if total != NULL else vset(0)
    for m in range(rows // 2):
        for q in range(P):
            a = vload(v + q * VLEN)
            b = vload(v + v_row + q * VLEN)
            vstore(out + q * VLEN, pair_lanes(a, b, fast))
            if total != NULL:
                sums[q] = sums[q] + a + b
        v += 2 * v_row
        out += P * VLEN
    for q in range(P):
        if rows & 1:
            a = vload(v + q * VLEN)
            vstore(out + q * VLEN, pair_lanes(a, vset(0), fast))
            sums[q] = sums[q] + a
        if total != NULL:
            vstore(total + q * VLEN, sums[q])


cdef inline void pair_panel(real* out, const real* v, isize v_row, isize rows, real* total, isize P,
                            const int fast) noexcept nogil:
    if P == 4:
        pair_right(out, v, v_row, rows, total, 4, fast)
    elif P == 3:
        pair_right(out, v, v_row, rows, total, 3, fast)
    elif P == 2:
        pair_right(out, v, v_row, rows, total, 2, fast)
    else:
        pair_right(out, v, v_row, rows, total, 1, fast)


cdef void pair_block(const outer_product* args, real* out, const real* v, isize rows) noexcept nogil:
    cdef isize row = left_width(args.depth, args.fast)
    if HAS_PAIRS and args.fast:
        pair_left(out, row, v, args.left_step, args.depth, rows, HAS_PAIRS)
    else:
        pair_left(out, row, v, args.left_step, args.depth, rows, False)


# As accumulate: out[r][k] = sum over m of left[m][r] right[m][k] for panels p0..p1.
cdef int accumulate_pairs(outer_product* args) noexcept nogil:
    cdef isize P = args.width, size = args.depth * P * VLEN, m = 0, p, rows, vectors
    cdef real* left = <real*>args.scratch
    cdef real* panel = left + LAST_PAIRS * left_width(args.depth, args.fast)
    cdef real* bias = NULL
    cdef const real* right
    if args.rows == 0:
        memset(<real*>args.out + args.p0 * size, 0, <size_t>((args.p1 - args.p0) * size) * sizeof(real))
    if args.bias != NULL:
        memset(<real*>args.bias + args.p0 * P * VLEN, 0, <size_t>((args.p1 - args.p0) * P * VLEN) * sizeof(real))
    while m < args.rows:
        rows = args.rows - m if args.rows - m <= 2 * LAST_PAIRS else 2 * PAIRS_BLOCK
        pair_block(args, left, <const real*>args.left + m * args.left_step, rows)
        for p in range(args.p0, args.p1):
            vectors = min(P, args.vectors - p * P)
            right = <const real*>args.right + p * args.right_panel + m * args.right_step
            if args.bias != NULL:
                bias = <real*>args.bias + p * P * VLEN
            if HAS_PAIRS and args.fast:
                pair_panel(panel, right, args.right_step, rows, bias, vectors, HAS_PAIRS)
            else:
                pair_panel(panel, right, args.right_step, rows, bias, vectors, False)
            if add_outer_pairs(args, left, panel, (rows + 1) // 2, vectors, m == 0, <real*>args.out + p * size):
                return -1
        m += rows
    return 0


# out[r][k] += the sum over the pairs m of left[m][r] panel[m][k]; the first block begins with zero.
cdef int add_outer_pairs(outer_product* args, const real* left, const real* panel, isize pairs, isize vectors,
                         bint first, real* out) noexcept nogil:
    cdef pair_args a
    cdef vf[4] zero
    cdef isize row = args.width * VLEN, r = 0, R
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    a.out_row = row
    a.init = <const real*>zero
    a.init_row = 0 if first else row
    a.operands = 1
    a.of[0].w = <const unsigned short*>panel
    a.of[0].v_row = sizeof(real) if args.fast else 2 * sizeof(real)
    a.of[0].v_step = left_width(args.depth, args.fast) * <isize>sizeof(real)
    a.of[0].pairs = pairs
    while r < args.depth:
        R = tile_rows(args.depth - r, ROWS[vectors])
        if should_stop_after(args.poll, &args.work, R * pairs * vectors):
            return -1
        a.out = out + r * row
        if not first:
            a.init = a.out
        a.of[0].v = <const signed char*>left + r * a.of[0].v_row
        call_pairs(&a, vectors, R, args.fast)
        r += R
    return 0


# ---- Weights -------------------------------------------------------------------------------------

# VLEN outputs of a row of W each, `row` apart, of which the first `lanes` exist: their pairs of k, `step` apart.
cdef inline void pack_vector(real* out, isize step, const real* w, isize row, isize column, isize lanes, isize depth,
                             const int fast) noexcept nogil:
    cdef vf first, second
    cdef isize k, l
    cdef real[2 * VLEN] block
    for k in range((depth + 1) // 2):
        for l in range(VLEN):
            block[l] = w[l * row + 2 * k * column] if l < lanes else 0
            block[VLEN + l] = w[l * row + (2 * k + 1) * column] if l < lanes and 2 * k + 1 < depth else 0
        vstore(out + k * step, pair_lanes(vload(block), vload(block + VLEN), fast))


# As pack, rounded to pairs of k.
cdef void pack_rounded(void* out, const void* w, isize row, isize column, isize size, isize u0, isize u1,
                       const int* gate, isize gates, isize width, isize depth) noexcept nogil:
    cdef isize vector, unit, lanes, pairs = (depth + 1) // 2
    cdef const real* source
    cdef real* target
    for vector in range(u0 * gates, u1 * gates):
        unit = vector // gates
        lanes = max(<isize>0, min(<isize>VLEN, size - unit * VLEN))
        source = <const real*>w + (gate[vector % gates] * size + unit * VLEN) * row
        target = <real*>out + ((vector // width) * pairs * width + vector % width) * VLEN
        pack_vector(target, width * VLEN, source, row, column, lanes, depth, False)


# The number k of the summed index [unit][g][lane]: its row of w, or NULL where there is none.
cdef inline const real* summed_row(const real* w, isize k, isize row, isize size, const int* gate, isize gates,
                                   isize depth) noexcept nogil:
    cdef isize within = k // (gates * VLEN) * VLEN + k % VLEN
    if k >= depth or within >= size:
        return NULL
    return w + (gate[(k // VLEN) % gates] * size + within) * row


# As pack_t, rounded to pairs of the summed index. Columns of w are side by side.
cdef void pack_t_rounded(void* out, const void* w, isize row, isize column, isize size, isize units, isize u0, isize u1,
                         const int* gate, isize gates, isize panels, isize width, isize columns) noexcept nogil:
    cdef isize depth = units * gates * VLEN, pairs = (depth + 1) // 2, k, vector
    cdef const real* a
    cdef const real* b
    cdef vf first, second
    CHECK(column == 1)
    for k in range(u0 * gates * VLEN // 2, pairs if u1 == units else u1 * gates * VLEN // 2):
        a = summed_row(<const real*>w, 2 * k, row, size, gate, gates, depth)
        b = summed_row(<const real*>w, 2 * k + 1, row, size, gate, gates, depth)
        for vector in range(panels * width):
            first = load_output(a, vector, columns) if a != NULL else vset(0)
            second = load_output(b, vector, columns) if b != NULL else vset(0)
            vstore(<real*>out + (((vector // width) * pairs + k) * width + vector % width) * VLEN,
                   pair_lanes(first, second, False))


cdef kernel_table BFLOAT16_TRAINING_TABLE
BFLOAT16_TRAINING_TABLE = BFLOAT16_TABLE
BFLOAT16_TRAINING_TABLE.backward = backward
BFLOAT16_TRAINING_TABLE.plan_backward = plan_backward_pairs
BFLOAT16_TRAINING_TABLE.accumulate = accumulate_pairs
BFLOAT16_TRAINING_TABLE.plan_accumulate = plan_accumulate_pairs
BFLOAT16_TRAINING_TABLE.multiply = multiply_rounded
BFLOAT16_TRAINING_TABLE.plan_multiply = plan_multiply_rounded
BFLOAT16_TRAINING_TABLE.pack_weights = pack_rounded
BFLOAT16_TRAINING_TABLE.pack_t = pack_t_rounded

bfloat16_training_table = PyCapsule_New(&BFLOAT16_TRAINING_TABLE, "fastrnn.kernel_table", NULL)
