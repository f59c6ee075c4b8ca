# The tile: the one loop nest that does all the arithmetic.
#
#     acc[r][q] = init[r][q] + sum over k of  w[k][q] * v[r][k]        r < R rows, q < P vectors
#
# for R batch rows and a panel of P vectors of outputs, all R * P accumulators in registers. k runs in order,
# one accumulator an output, so the bits of an output do not depend on which rows share its tile.
#
# R and P are constants once `tile` is inlined into a line of "Instances": its loops unroll whole. An instance
# is called through TILES and never inlined beside an activation, whose constants would spill the accumulators.
#
# Uses real, vf, VLEN, vload, vstore, vset, vfma, ROWS1..4 (declarations), isize, CHECK (structs).

cdef struct operand:                # one summand: `outer` blocks of `depth` products
    const real* w                   # w[(o * depth + k) * w_step + q * VLEN], aligned to a vector
    const real* v                   # v[o * v_outer + k * v_step + r * v_row]
    isize v_row, v_step, v_outer, outer, depth
    isize w_panel                   # tile_row: from one panel to the next

cdef struct tile_args:
    real* acc                       # the result: acc[r * acc_row + q * VLEN]
    isize acc_row
    const real* init                # where the sums start, as acc, and may be acc; init_row 0: the same for all rows
    isize init_row
    isize w_step
    isize acc_panel, init_panel     # tile_row: from one panel to the next
    isize operands                  # how many of `of` are summed
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
            # The next block lies elsewhere, where the hardware expects no read. One row is in the L1 cache as it is.
            if R > 1 and o + 1 < a.of[i].outer:
                for r in range(R):
                    prefetch_shared(v + a.of[i].v_outer + r * v_row, depth * <isize>sizeof(real))
            for k in range(depth):
                if R > P:       # the operand with fewer vectors stays in registers
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


# One row, Q panels at once: enough independent sums to hide the latency of FMA. Each sum has the same order.
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


# Rows of the next tile when `remaining` are to be done. Tiles are nearly equal: 16 rows in tiles of at most 6 are taken
# as 6, 5, 5.
cdef inline isize tile_rows(isize remaining, isize most) noexcept nogil:
    cdef isize tiles
    if remaining <= most:       # saves the division, which costs a short step several nanoseconds
        return remaining
    tiles = (remaining + most - 1) // most
    return (remaining + tiles - 1) // tiles


# Calls the tile of R rows and P vectors; or, for one row, the one that takes ROW_PANELS[P] panels at once.
cdef inline void call_tile(const tile_args* a, isize P, isize R) noexcept nogil:
    CHECK(1 <= P and P <= 4 and 1 <= R and R <= ROWS[P])
    CHECK(a.operands >= 1 and a.operands <= 2 and <size_t>a.of[0].w % sizeof(vf) == 0)
    TILES[P][R](a)


cdef inline void call_tile_row(const tile_args* a, isize P) noexcept nogil:
    CHECK(1 <= P and P <= 4 and a.operands >= 1 and a.operands <= 2 and <size_t>a.of[0].w % sizeof(vf) == 0)
    ROW[P](a)


# An operand that is a packed matrix's panel p times vectors v, rows v_row apart; the blocks of the summed index lie
# v_outer apart.
cdef inline void set_operand(operand* of, const matrix* w, isize p, const real* v, isize v_row,
                             isize v_outer) noexcept nogil:
    of.w = <const real*>w.data + p * w.outer * w.depth * w.width * VLEN
    of.w_panel = w.depth * w.width * VLEN
    of.v = v
    of.v_row = v_row
    of.v_step = 1
    of.v_outer = v_outer
    of.outer = w.outer
    of.depth = w.depth


# How many vectors of panel p hold outputs.
cdef inline isize panel_vectors(const matrix* w, isize p) noexcept nogil:
    return min(w.width, w.vectors - p * w.width)


# out[r][q] = init[r][q] + panel p of w times row r of v, r < R. Vectors that pad the panel are not written.
cdef inline void panel_product(const matrix* w, isize p, const real* v, isize v_row, isize v_outer,
                               const real* init, isize init_row, real* out, isize out_row, isize R) noexcept nogil:
    cdef tile_args a
    a.acc = out
    a.acc_row = out_row
    a.init = init
    a.init_row = init_row
    a.w_step = w.width * VLEN
    a.operands = 1
    set_operand(&a.of[0], w, p, v, v_row, v_outer)
    if w.last < w.depth and w.outer > 1:
        a.operands = 2
        a.of[1] = a.of[0]
        a.of[0].outer = w.outer - 1
        a.of[1].outer, a.of[1].depth = 1, w.last
        a.of[1].w += (w.outer - 1) * w.depth * w.width * VLEN
        a.of[1].v += (w.outer - 1) * v_outer
    call_tile(&a, panel_vectors(w, p), R)
