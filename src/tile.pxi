# The tile: the one loop nest that does all the arithmetic.
#
#     acc[r][q] = init[r][q] + sum over k of  w[k][q] * v[r][k]        r < R rows, q < P vectors
#
# for R batch rows and a panel of P vectors of outputs, all R * P accumulators in registers. k runs in order,
# one accumulator an output, so the bits of an output do not depend on which rows share its tile.
#
# R and P are constants once `tile` is inlined into a line of "Instances": its loops unroll whole. An instance
# is called through TILES and never inlined beside an activation, whose constants would spill the accumulators.

cdef struct operand:                # a summand: outer blocks of depth products
    const real* w                   # w[(o * depth + k) * w_step + q * VLEN]
    const real* v                   # v[o * v_outer + k * v_step + r * v_row]
    isize v_row, v_step, v_outer, outer, depth
    isize w_panel                   # tile_row: from a panel to the next

cdef struct tile_args:
    real* acc                       # acc[r * acc_row + q * VLEN]
    isize acc_row
    const real* init                # as acc; init_row 0: one bias for every row
    isize init_row
    isize w_step
    isize acc_panel, init_panel     # tile_row: from a panel to the next
    isize operands
    operand[2] of                   # summed in this order: x W_ih, then h W_hh

ctypedef void (*tile_function)(const tile_args*) noexcept nogil


cdef inline void tile(const tile_args* a, const int R, const int P) noexcept nogil:
    cdef vf acc[8][4]
    cdef vf b[8]
    cdef vf x
    cdef isize r, q, k, o, i, v_row, v_step, depth
    cdef isize w_step = a.w_step, init_row = a.init_row, acc_row = a.acc_row
    cdef const real* init = a.init
    cdef real* out = a.acc
    cdef const real* w
    cdef const real* v
    for r in range(R):
        for q in range(P):
            acc[r][q] = vload(init + r * init_row + q * VLEN)
    for i in range(a.operands):
        w = a.of[i].w
        v_row = a.of[i].v_row
        v_step = a.of[i].v_step
        depth = a.of[i].depth
        for o in range(a.of[i].outer):
            v = a.of[i].v + o * a.of[i].v_outer
            for k in range(depth):
                if R > P:       # keep the operand with fewer vectors in registers, the other passes through
                    for q in range(P):
                        b[q] = vload(w + q * VLEN)
                    for r in range(R):
                        x = vset(v[r * v_row])
                        for q in range(P):
                            acc[r][q] = vfma(b[q], x, acc[r][q])
                else:
                    for r in range(R):
                        b[r] = vset(v[r * v_row])
                    for q in range(P):
                        x = vload(w + q * VLEN)
                        for r in range(R):
                            acc[r][q] = vfma(x, b[r], acc[r][q])
                w += w_step
                v += v_step
    for r in range(R):
        for q in range(P):
            vstore(out + r * acc_row + q * VLEN, acc[r][q])


# One row, Q panels at once: enough independent sums to hide the latency of FMA. The same order of sums.
cdef inline void tile_row(const tile_args* a, const int P, const int Q) noexcept nogil:
    cdef vf acc[4][4]
    cdef vf x
    cdef isize q, p, k, i, depth, w_panel, w_step = a.w_step
    cdef const real* w
    cdef const real* v
    for p in range(Q):
        for q in range(P):
            acc[p][q] = vload(a.init + p * a.init_panel + q * VLEN)
    for i in range(a.operands):
        w = a.of[i].w
        v = a.of[i].v
        depth = a.of[i].depth
        w_panel = a.of[i].w_panel
        for k in range(depth):
            x = vset(v[k])
            for p in range(Q):
                for q in range(P):
                    acc[p][q] = vfma(vload(w + p * w_panel + q * VLEN), x, acc[p][q])
            w += w_step
    for p in range(Q):
        for q in range(P):
            vstore(a.acc + p * a.acc_panel + q * VLEN, acc[p][q])


# ---- Instances, one a line: tile_<rows>_<vectors> ------------------------------------------------

cdef void tile_1_1(const tile_args* a) noexcept nogil: tile(a, 1, 1)
cdef void tile_2_1(const tile_args* a) noexcept nogil: tile(a, 2, 1)
cdef void tile_3_1(const tile_args* a) noexcept nogil: tile(a, 3, 1)
cdef void tile_4_1(const tile_args* a) noexcept nogil: tile(a, 4, 1)
cdef void tile_5_1(const tile_args* a) noexcept nogil: tile(a, 5, 1)
cdef void tile_6_1(const tile_args* a) noexcept nogil: tile(a, 6, 1)
cdef void tile_7_1(const tile_args* a) noexcept nogil: tile(a, 7, 1)
cdef void tile_8_1(const tile_args* a) noexcept nogil: tile(a, 8, 1)
cdef void tile_1_2(const tile_args* a) noexcept nogil: tile(a, 1, 2)
cdef void tile_2_2(const tile_args* a) noexcept nogil: tile(a, 2, 2)
cdef void tile_3_2(const tile_args* a) noexcept nogil: tile(a, 3, 2)
cdef void tile_4_2(const tile_args* a) noexcept nogil: tile(a, 4, 2)
cdef void tile_5_2(const tile_args* a) noexcept nogil: tile(a, 5, 2)
cdef void tile_6_2(const tile_args* a) noexcept nogil: tile(a, 6, 2)
cdef void tile_7_2(const tile_args* a) noexcept nogil: tile(a, 7, 2)
cdef void tile_8_2(const tile_args* a) noexcept nogil: tile(a, 8, 2)
cdef void tile_1_3(const tile_args* a) noexcept nogil: tile(a, 1, 3)
cdef void tile_2_3(const tile_args* a) noexcept nogil: tile(a, 2, 3)
cdef void tile_3_3(const tile_args* a) noexcept nogil: tile(a, 3, 3)
cdef void tile_4_3(const tile_args* a) noexcept nogil: tile(a, 4, 3)
cdef void tile_5_3(const tile_args* a) noexcept nogil: tile(a, 5, 3)
cdef void tile_6_3(const tile_args* a) noexcept nogil: tile(a, 6, 3)
cdef void tile_7_3(const tile_args* a) noexcept nogil: tile(a, 7, 3)
cdef void tile_8_3(const tile_args* a) noexcept nogil: tile(a, 8, 3)
cdef void tile_1_4(const tile_args* a) noexcept nogil: tile(a, 1, 4)
cdef void tile_2_4(const tile_args* a) noexcept nogil: tile(a, 2, 4)
cdef void tile_3_4(const tile_args* a) noexcept nogil: tile(a, 3, 4)
cdef void tile_4_4(const tile_args* a) noexcept nogil: tile(a, 4, 4)
cdef void tile_5_4(const tile_args* a) noexcept nogil: tile(a, 5, 4)
cdef void tile_6_4(const tile_args* a) noexcept nogil: tile(a, 6, 4)

cdef void row_1(const tile_args* a) noexcept nogil: tile_row(a, 1, 4)
cdef void row_2(const tile_args* a) noexcept nogil: tile_row(a, 2, 4)
cdef void row_3(const tile_args* a) noexcept nogil: tile_row(a, 3, 2)
cdef void row_4(const tile_args* a) noexcept nogil: tile_row(a, 4, 2)

cdef tile_function[5][9] TILES       # [vectors][rows]
cdef tile_function[5] ROW            # [vectors]: one row, ROW_PANELS panels
cdef isize[5] ROWS                   # the most rows of a tile
cdef isize[5] ROW_PANELS

TILES[1] = [NULL, tile_1_1, tile_2_1, tile_3_1, tile_4_1, tile_5_1, tile_6_1, tile_7_1, tile_8_1]
TILES[2] = [NULL, tile_1_2, tile_2_2, tile_3_2, tile_4_2, tile_5_2, tile_6_2, tile_7_2, tile_8_2]
TILES[3] = [NULL, tile_1_3, tile_2_3, tile_3_3, tile_4_3, tile_5_3, tile_6_3, tile_7_3, tile_8_3]
TILES[4] = [NULL, tile_1_4, tile_2_4, tile_3_4, tile_4_4, tile_5_4, tile_6_4, NULL, NULL]
ROW = [NULL, row_1, row_2, row_3, row_4]
ROWS = [0, ROWS1, ROWS2, ROWS3, ROWS4]
ROW_PANELS = [1, 4, 4, 2, 2]


# Rows of the next tile when `left` remain: near-equal tiles, 16 rows by at most 6 go as 6, 5, 5.
cdef inline isize tile_rows(isize left, isize most) noexcept nogil:
    cdef isize tiles
    if left <= most:        # a division costs a short step several nanoseconds
        return left
    tiles = (left + most - 1) // most
    return (left + tiles - 1) // tiles


# bias[o] + left[m][k] w[k][o] for rows m0..m1: out (columns wide, unpadded).
cdef int multiply(product* s) noexcept nogil:
    cdef tile_args a
    cdef vf[32] acc
    cdef isize P = s.w.width, size = s.w.outer * s.w.depth
    cdef isize p, m, R, r, q, first
    cdef vf zero = vset(0)
    cdef vf[4] start
    cdef real* out
    start[0] = start[1] = start[2] = start[3] = zero
    a.acc = <real*>acc
    a.acc_row = P * VLEN
    a.init = <const real*>start
    a.init_row = 0
    a.w_step = P * VLEN
    a.operands = 1
    a.of[0].v_row = s.left_row
    a.of[0].v_step = 1
    a.of[0].v_outer = s.left_outer
    a.of[0].outer = s.w.outer
    a.of[0].depth = s.w.depth
    for p in range(s.w.panels):
        a.of[0].w = <const real*>s.w.data + p * size * P * VLEN
        if s.bias != NULL:
            a.init = <const real*>s.bias + p * P * VLEN
        m = s.m0
        while m < s.m1:
            R = tile_rows(s.m1 - m, ROWS[P])
            if should_stop_after(s.poll, &s.work, R * size * P):
                return -1
            a.of[0].v = <const real*>s.left + m * s.left_row
            TILES[P][R](&a)
            for r in range(R):
                out = <real*>s.out + (m + r) * s.out_row
                for q in range(P):
                    first = (p * P + q) * VLEN
                    if first < s.columns:
                        vstore_part(out + first, acc[r * P + q], s.columns - first)
            m += R
    return 0


cdef enum: BLOCK = 96


# out[r][k] = sum over m of left[m][r] right[m][k], panels p0..p1. m in order, in blocks that keep a panel's
# piece of `right` in L1 while all of `left` passes over it.
cdef int accumulate(outer_product* s) noexcept nogil:
    cdef tile_args a
    cdef isize P = s.width
    cdef isize p, m, k, q, R, i, depth, size = s.depth * P * VLEN
    cdef real* out
    cdef real* bias
    cdef const real* right
    cdef vf[4] total
    a.acc_row = a.init_row = P * VLEN
    a.w_step = s.right_step
    a.operands = 1
    a.of[0].v_row = 1
    a.of[0].v_step = s.left_step
    a.of[0].v_outer = 0
    a.of[0].outer = 1
    memset(<real*>s.out + s.p0 * size, 0, <size_t>((s.p1 - s.p0) * size) * sizeof(real))
    if s.bias != NULL:
        memset(<real*>s.bias + s.p0 * P * VLEN, 0, <size_t>((s.p1 - s.p0) * P * VLEN) * sizeof(real))
    m = 0
    while m < s.rows:
        depth = a.of[0].depth = min(<isize>BLOCK, s.rows - m)
        for p in range(s.p0, s.p1):
            out = <real*>s.out + p * size
            right = <const real*>s.right + p * s.right_panel + m * s.right_step
            a.of[0].w = right
            k = 0
            while k < s.depth:
                R = tile_rows(s.depth - k, ROWS[P])
                if should_stop_after(s.poll, &s.work, R * depth * P):
                    return -1
                a.acc = out + k * P * VLEN
                a.init = a.acc
                a.of[0].v = <const real*>s.left + m * s.left_step + k
                TILES[P][R](&a)
                k += R
            if s.bias != NULL:
                bias = <real*>s.bias + p * P * VLEN
                for q in range(P):
                    total[q] = vload(bias + q * VLEN)
                for i in range(depth):
                    for q in range(P):
                        total[q] = total[q] + vload(right + i * s.right_step + q * VLEN)
                for q in range(P):
                    vstore(bias + q * VLEN, total[q])
        m += depth
    return 0
