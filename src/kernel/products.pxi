# Products over a whole batch: affine maps and input gradients (multiply), weight gradients (accumulate).
#
# Uses tile_args, tile_rows, ROWS, call_tile, panel_product (tile), product, outer_product (structs), should_stop_after
# (kernels).

# out[m][o] = bias[o] + sum over k of left[m][k] w[k][o] for rows m0..m1; out is `columns` wide, without padding.
cdef int multiply(void* argument) noexcept nogil:
    cdef product* args = <product*>argument
    cdef vf[32] acc
    cdef vf[4] zero
    cdef isize P = args.w.width, depth = args.w.outer * args.w.depth
    cdef isize p, m, R, r, q, first, vectors
    cdef const real* init = <const real*>zero
    cdef real* out
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    for p in range(args.w.panels):
        if args.bias != NULL:
            init = <const real*>args.bias + p * P * VLEN
        vectors = panel_vectors(args.w, p)
        m = args.m0
        while m < args.m1:
            R = tile_rows(args.m1 - m, ROWS[vectors])
            if should_stop_after(args.poll, &args.work, R * depth * vectors):
                return -1
            panel_product(args.w, p, <const real*>args.left + m * args.left_row, args.left_row, args.left_outer,
                          init, 0, <real*>acc, P * VLEN, R)
            for r in range(R):
                out = <real*>args.out + (m + r) * args.out_row
                for q in range(vectors):
                    first = (p * P + q) * VLEN
                    vstore_part(out + first, acc[r * P + q], args.columns - first)
            m += R
    return 0


cdef isize plan_multiply(const matrix* w) noexcept nogil:
    return 0


# Rows m of a panel of `right` that stay in L1 while all of `left` passes over them; and of the last block, which may be
# longer rather than leave a few rows to a block of their own: each block reads and writes all of `out`.
cdef enum: BLOCK = 96, LAST_BLOCK = 112


# out[r][k] = sum over m of left[m][r] right[m][k], and bias[k] = sum over m of right[m][k], for panels p0..p1. Each sum
# takes m in order, block by block.
cdef int accumulate(outer_product* args) noexcept nogil:
    cdef isize P = args.width, size = args.depth * P * VLEN, m = 0, p, rows, vectors
    cdef const real* right
    if args.rows == 0:
        memset(<real*>args.out + args.p0 * size, 0, <size_t>((args.p1 - args.p0) * size) * sizeof(real))
    if args.bias != NULL:
        memset(<real*>args.bias + args.p0 * P * VLEN, 0, <size_t>((args.p1 - args.p0) * P * VLEN) * sizeof(real))
    while m < args.rows:
        rows = args.rows - m if args.rows - m <= LAST_BLOCK else BLOCK
        for p in range(args.p0, args.p1):
            vectors = min(P, args.vectors - p * P)
            right = <const real*>args.right + p * args.right_panel + m * args.right_step
            if add_outer_product(args, <const real*>args.left + m * args.left_step, right, rows, vectors, m == 0,
                                 <real*>args.out + p * size):
                return -1
            if args.bias != NULL:
                add_column_sums(args, right, rows, vectors, <real*>args.bias + p * P * VLEN)
        m += rows
    return 0


cdef isize plan_accumulate(const outer_product* args) noexcept nogil:
    return 0


# out[r][k] += left[m][r] right[m][k] for one block of rows m and one panel; the first block begins with zero.
cdef int add_outer_product(outer_product* args, const real* left, const real* right, isize rows, isize vectors,
                           bint first, real* out) noexcept nogil:
    cdef tile_args a
    cdef vf[4] zero
    cdef isize P = args.width, r = 0, R
    zero[0] = zero[1] = zero[2] = zero[3] = vset(0)
    a.acc_row = P * VLEN
    a.init = <const real*>zero
    a.init_row = 0 if first else P * VLEN
    a.w_step = args.right_step
    a.operands = 1
    a.of[0].w = right
    a.of[0].v_row = 1
    a.of[0].v_step = args.left_step
    a.of[0].v_outer = 0
    a.of[0].outer = 1
    a.of[0].depth = rows
    while r < args.depth:
        R = tile_rows(args.depth - r, ROWS[vectors])
        if should_stop_after(args.poll, &args.work, R * rows * vectors):
            return -1
        a.acc = out + r * P * VLEN
        if not first:
            a.init = a.acc
        a.of[0].v = left + r
        call_tile(&a, vectors, R)
        r += R
    return 0


cdef void add_column_sums(outer_product* args, const real* right, isize rows, isize vectors, real* bias) noexcept nogil:
    cdef isize q, m
    cdef vf[4] total
    for q in range(vectors):
        total[q] = vload(bias + q * VLEN)
    for m in range(rows):
        for q in range(vectors):
            total[q] = total[q] + vload(right + m * args.right_step + q * VLEN)
    for q in range(vectors):
        vstore(bias + q * VLEN, total[q])
