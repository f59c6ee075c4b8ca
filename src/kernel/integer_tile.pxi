# The tile of int8 layers, with exact sums:
#
#     out[r][q] = init[r][q] + (sum over k of  w[k][q] * v[r][k]) * v_scale[r] * w_scale[q]
#
# for R rows r and P vectors of outputs q.
#
# w are the weights divided by the scale of their output (a gate row) and that of their column k, v the numbers of a row
# times those of the columns and divided by the row's own scale: integers in -127...127. Their sum is an int32 without
# rounding, so that neither its order nor the instruction set changes a bit of it. It is rounded to float, multiplied by
# both scales and added to init, by one FMA where the machine has that.
#
# Rows are quantised by `quantise_rows`, once a step for all panels; fastrnn.nn.reference has the same rule:
#
#     u[k] = v[k] * column[k]     m = max |u[k]|     v_scale = m / 127     v[k] -> round(u[k] * (127 / m)), ties to even
#
# all in float32.
# A row with m < 2^-119 is zero and has scale 0. NaN: scale NaN, so that the row's sums are NaN. Infinity: scale
# infinity, v[k] -> +-1 where v[k] is infinite and 0 elsewhere; `infinite_sums` then gives what float arithmetic would.
#
# Uses real, vf, vi, VLEN and narrow.h (below), matrix, isize, CHECK (structs).

cdef extern from "narrow.h" nogil:
    ctypedef float vi
    ctypedef float dot_acc
    ctypedef float dot_w
    ctypedef float dot_x
    ctypedef int bits
    enum: HAS_DOT
    enum: FLIP
    enum: DOT_ROWS1
    enum: DOT_ROWS2
    enum: DOT_ROWS3
    enum: DOT_ROWS4
    dot_w dot_weights(const signed char* p)
    dot_x dot_spread(const signed char* p)
    dot_acc dot_start(const int* p)
    dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
    vi dot_sums(dot_acc a)
    vf from_ints(vi a)
    vi abs_bits(vf v)
    vi zero_bits()
    vi vi_max(vi a, vi b)
    bits largest_bits(vi a)
    void store_bytes(signed char* p, vf v, const int flip)
    real from_bits(bits b)

cdef extern from "math.h" nogil:
    double NAN

cdef enum:
    GROUP = 4                       # numbers k that one instruction multiplies for each output
    SMALLEST = 0x04000000           # the bits of 2^-119: from here on m / 127 and 127 / m are normal numbers
    INFINITE = 0x7f800000           # the bits of infinity; those of NaN are greater

# Rows that are quantised: row r begins at data + r * row. [call]
cdef struct narrow_rows:
    signed char* data
    isize row                       # bytes
    real* scale

cdef struct dot_args:
    real* out                       # out[r * out_row + q * VLEN]; dot_row: from one panel to the next, out_panel
    isize out_row, out_panel
    const real* init                # where the sums start, as out; init_row 0: the same for all rows; never out itself
    isize init_row, init_panel
    const signed char* w            # w[((k // GROUP) * P + q) * VLEN * GROUP + lane * GROUP + k % GROUP], aligned
    isize w_panel                   # dot_row: bytes from one panel to the next
    const real* w_scale             # [P][VLEN]
    const int* offset               # [P][VLEN]: fast: -128 * the sum of an output's weights; else unused
    narrow_rows v
    isize groups                    # k in groups of GROUP, the last one padded with weights of 0
    bint fast


# ---- Rows ----------------------------------------------------------------------------------------

# Bytes of a quantised row of n numbers: whole vectors, so that it may be read and written by vectors.
cdef inline isize narrow_row(isize n) noexcept nogil:
    return (n + 63) // 64 * 64


cdef inline void quantise_row(const real* v, const real* column, isize n, signed char* out, real* scale,
                              const int flip) noexcept nogil:
    cdef vi largest = zero_bits()
    cdef vf factor
    cdef isize i, vectors = n // VLEN, whole = vectors * VLEN
    cdef bits m
    for i in range(vectors):
        largest = vi_max(largest, abs_bits(vload(v + i * VLEN) * vload(column + i * VLEN)))
    if whole < n:
        largest = vi_max(largest, abs_bits(vload_part(v + whole, n - whole) * vload(column + whole)))
    m = largest_bits(largest)
    if m >= INFINITE:
        quantise_infinite(v, n, out, scale, m == INFINITE, flip)
        return
    scale[0] = from_bits(m) / 127 if m >= SMALLEST else 0
    factor = vset(127 / from_bits(m) if m >= SMALLEST else 0)
    for i in range(vectors):
        store_bytes(out + i * VLEN, vload(v + i * VLEN) * vload(column + i * VLEN) * factor, flip)
    if whole < n:
        store_bytes(out + whole, vload_part(v + whole, n - whole) * vload(column + whole) * factor, flip)


cdef void quantise_infinite(const real* v, isize n, signed char* out, real* scale, bint infinite,
                            int flip) noexcept nogil:
    cdef isize k
    scale[0] = INFINITY if infinite else NAN
    for k in range(narrow_row(n)):
        out[k] = (v[k] == INFINITY) - (v[k] == -INFINITY) if infinite and k < n else 0
        out[k] ^= flip


# Quantises R rows, v_row apart, for products with w.
cdef inline void quantise_rows(const matrix* w, const real* v, isize v_row, isize R,
                               const narrow_rows* out) noexcept nogil:
    cdef const real* column = <const real*>w.column
    cdef isize r
    for r in range(R):
        if HAS_DOT and w.fast:
            quantise_row(v + r * v_row, column, w.depth, out.data + r * out.row, out.scale + r, FLIP)
        else:
            quantise_row(v + r * v_row, column, w.depth, out.data + r * out.row, out.scale + r, 0)


# ---- The tile ------------------------------------------------------------------------------------

cdef inline void dot_finish(const dot_args* a, const dot_acc* acc, isize r, isize panel, const int P) noexcept nogil:
    cdef vf v_scale = vset(a.v.scale[r])
    cdef const real* init = a.init + r * a.init_row + panel * a.init_panel
    cdef const real* w_scale = a.w_scale + panel * P * VLEN
    cdef real* out = a.out + r * a.out_row + panel * a.out_panel
    cdef isize q
    for q in range(P):
        vstore(out + q * VLEN, vfma(from_ints(dot_sums(acc[q])) * v_scale, vload(w_scale + q * VLEN),
                                    vload(init + q * VLEN)))


cdef inline void dot_rows(const dot_args* a, const int R, const int P, const int fast) noexcept nogil:
    cdef dot_acc acc[8][4]
    cdef dot_w b[4]
    cdef dot_x x
    cdef isize r, q, k, v_row = a.v.row
    cdef const signed char* w = a.w
    cdef const signed char* v = a.v.data
    for r in range(R):
        for q in range(P):
            acc[r][q] = dot_start(a.offset + q * VLEN)
    for k in range(a.groups):
        for q in range(P):
            b[q] = dot_weights(w + q * VLEN * GROUP)
        for r in range(R):
            x = dot_spread(v + r * v_row)
            for q in range(P):
                acc[r][q] = dot(acc[r][q], b[q], x, fast)
        w += P * VLEN * GROUP
        v += GROUP
    for r in range(R):
        dot_finish(a, acc[r], r, 0, P)


# One row, Q panels at once: enough independent sums to hide the latency of the products.
cdef inline void dot_panels(const dot_args* a, const int P, const int Q, const int fast) noexcept nogil:
    cdef dot_acc acc[4][4]
    cdef dot_x x
    cdef isize q, p, k, w_panel = a.w_panel
    cdef const signed char* w = a.w
    cdef const signed char* v = a.v.data
    for p in range(Q):
        for q in range(P):
            acc[p][q] = dot_start(a.offset + (p * P + q) * VLEN)
    for k in range(a.groups):
        x = dot_spread(v)
        for p in range(Q):
            for q in range(P):
                acc[p][q] = dot(acc[p][q], dot_weights(w + p * w_panel + q * VLEN * GROUP), x, fast)
        w += P * VLEN * GROUP
        v += GROUP
    for p in range(Q):
        dot_finish(a, acc[p], 0, p, P)


cdef inline void dot_tile(const dot_args* a, const int R, const int P) noexcept nogil:
    if HAS_DOT and a.fast:
        dot_rows(a, R, P, True)
    else:
        dot_rows(a, R, P, False)


cdef inline void dot_tile_row(const dot_args* a, const int P, const int Q) noexcept nogil:
    if HAS_DOT and a.fast:
        dot_panels(a, P, Q, True)
    else:
        dot_panels(a, P, Q, False)


# ---- Instances, one a line: dot_<rows>_<vectors> --------------------------------------------------

cdef void dot_1_1(const dot_args* a) noexcept nogil: dot_tile(a, 1, 1)
cdef void dot_2_1(const dot_args* a) noexcept nogil: dot_tile(a, 2, 1)
cdef void dot_3_1(const dot_args* a) noexcept nogil: dot_tile(a, 3, 1)
cdef void dot_4_1(const dot_args* a) noexcept nogil: dot_tile(a, 4, 1)
cdef void dot_5_1(const dot_args* a) noexcept nogil: dot_tile(a, 5, 1)
cdef void dot_6_1(const dot_args* a) noexcept nogil: dot_tile(a, 6, 1)
cdef void dot_7_1(const dot_args* a) noexcept nogil: dot_tile(a, 7, 1)
cdef void dot_8_1(const dot_args* a) noexcept nogil: dot_tile(a, 8, 1)
cdef void dot_1_2(const dot_args* a) noexcept nogil: dot_tile(a, 1, 2)
cdef void dot_2_2(const dot_args* a) noexcept nogil: dot_tile(a, 2, 2)
cdef void dot_3_2(const dot_args* a) noexcept nogil: dot_tile(a, 3, 2)
cdef void dot_4_2(const dot_args* a) noexcept nogil: dot_tile(a, 4, 2)
cdef void dot_5_2(const dot_args* a) noexcept nogil: dot_tile(a, 5, 2)
cdef void dot_6_2(const dot_args* a) noexcept nogil: dot_tile(a, 6, 2)
cdef void dot_7_2(const dot_args* a) noexcept nogil: dot_tile(a, 7, 2)
cdef void dot_8_2(const dot_args* a) noexcept nogil: dot_tile(a, 8, 2)
cdef void dot_1_3(const dot_args* a) noexcept nogil: dot_tile(a, 1, 3)
cdef void dot_2_3(const dot_args* a) noexcept nogil: dot_tile(a, 2, 3)
cdef void dot_3_3(const dot_args* a) noexcept nogil: dot_tile(a, 3, 3)
cdef void dot_4_3(const dot_args* a) noexcept nogil: dot_tile(a, 4, 3)
cdef void dot_5_3(const dot_args* a) noexcept nogil: dot_tile(a, 5, 3)
cdef void dot_6_3(const dot_args* a) noexcept nogil: dot_tile(a, 6, 3)
cdef void dot_7_3(const dot_args* a) noexcept nogil: dot_tile(a, 7, 3)
cdef void dot_8_3(const dot_args* a) noexcept nogil: dot_tile(a, 8, 3)
cdef void dot_1_4(const dot_args* a) noexcept nogil: dot_tile(a, 1, 4)
cdef void dot_2_4(const dot_args* a) noexcept nogil: dot_tile(a, 2, 4)
cdef void dot_3_4(const dot_args* a) noexcept nogil: dot_tile(a, 3, 4)
cdef void dot_4_4(const dot_args* a) noexcept nogil: dot_tile(a, 4, 4)
cdef void dot_5_4(const dot_args* a) noexcept nogil: dot_tile(a, 5, 4)
cdef void dot_6_4(const dot_args* a) noexcept nogil: dot_tile(a, 6, 4)

cdef void dot_row_1(const dot_args* a) noexcept nogil: dot_tile_row(a, 1, 4)
cdef void dot_row_2(const dot_args* a) noexcept nogil: dot_tile_row(a, 2, 4)
cdef void dot_row_3(const dot_args* a) noexcept nogil: dot_tile_row(a, 3, 2)
cdef void dot_row_4(const dot_args* a) noexcept nogil: dot_tile_row(a, 4, 2)

ctypedef void (*dot_function)(const dot_args*) noexcept nogil

cdef dot_function[5][9] DOT_TILES    # [vectors][rows]
cdef dot_function[5] DOT_ROW         # [vectors]: one row, ROW_PANELS panels
cdef isize[5] DOT_ROWS               # the most rows of a tile

DOT_TILES[1] = [NULL, dot_1_1, dot_2_1, dot_3_1, dot_4_1, dot_5_1, dot_6_1, dot_7_1, dot_8_1]
DOT_TILES[2] = [NULL, dot_1_2, dot_2_2, dot_3_2, dot_4_2, dot_5_2, dot_6_2, dot_7_2, dot_8_2]
DOT_TILES[3] = [NULL, dot_1_3, dot_2_3, dot_3_3, dot_4_3, dot_5_3, dot_6_3, dot_7_3, dot_8_3]
DOT_TILES[4] = [NULL, dot_1_4, dot_2_4, dot_3_4, dot_4_4, dot_5_4, dot_6_4, NULL, NULL]
DOT_ROW = [NULL, dot_row_1, dot_row_2, dot_row_3, dot_row_4]
DOT_ROWS = [0, DOT_ROWS1, DOT_ROWS2, DOT_ROWS3, DOT_ROWS4]


# out[r][q] = init[r][q] + panel p of w times row r of v, r < R; or one row and panels p..p+Q.
cdef inline void narrow_product(const matrix* w, isize p, isize Q, const narrow_rows* v, isize r, const real* init,
                                isize init_row, isize init_panel, real* out, isize out_row, isize out_panel,
                                isize R) noexcept nogil:
    cdef dot_args a
    cdef isize P = w.width, i, q
    a.out, a.out_row, a.out_panel = out, out_row, out_panel
    a.init, a.init_row, a.init_panel = init, init_row, init_panel
    a.groups = (w.depth + GROUP - 1) // GROUP
    a.w_panel = a.groups * P * VLEN * GROUP
    a.w = <const signed char*>w.data + p * a.w_panel
    a.w_scale = <const real*>w.scale + p * P * VLEN
    a.offset = <const int*>w.offset + p * P * VLEN
    a.fast = w.fast
    a.v.data, a.v.row, a.v.scale = v.data + r * v.row, v.row, v.scale + r
    CHECK(1 <= P and P <= 4 and 1 <= R and R <= DOT_ROWS[P] and <size_t>a.w % sizeof(vf) == 0)
    if Q > 1:
        DOT_ROW[P](&a)
    else:
        DOT_TILES[P][R](&a)
    for i in range(R):
        if a.v.scale[i] == INFINITY:
            for q in range(Q):
                infinite_sums(&a, P, i, q)


# A row with infinite numbers: each output is infinite with the sign of w v, NaN where both signs meet, and the start
# alone where all weights of the infinite numbers are 0.
cdef void infinite_sums(const dot_args* a, isize P, isize r, isize panel) noexcept nogil:
    cdef const signed char* v = a.v.data + r * a.v.row
    cdef const signed char* w = a.w + panel * a.w_panel
    cdef const real* init = a.init + r * a.init_row + panel * a.init_panel
    cdef real* out = a.out + r * a.out_row + panel * a.out_panel
    cdef isize i, k, sign
    cdef signed char number
    for i in range(P * VLEN):
        out[i] = init[i]
        for k in range(a.groups * GROUP):
            number = v[k]
            if HAS_DOT and a.fast:
                number ^= FLIP
            sign = number * w[((k // GROUP) * P * VLEN + i) * GROUP + k % GROUP]
            if sign:
                out[i] += INFINITY if sign > 0 else -INFINITY


# Packs int8 weights: the arguments are those of `pack`, and the last group of k is padded with zeros.
cdef void pack_narrow(void* out, const void* w, isize row, isize column, isize size, isize units,
                      const int* gate, isize gates, isize width, isize depth) noexcept nogil:
    cdef isize vector, unit, k, l, at, groups = (depth + GROUP - 1) // GROUP
    cdef const signed char* source
    cdef signed char* target
    for vector in range(units * gates):
        unit = vector // gates
        source = <const signed char*>w + (gate[vector % gates] * size + unit * VLEN) * row
        target = <signed char*>out + ((vector // width) * groups * width + vector % width) * VLEN * GROUP
        for k in range(groups * GROUP):
            at = k // GROUP * width * VLEN * GROUP + k % GROUP
            for l in range(VLEN):
                target[at + l * GROUP] = source[l * row + k * column] if k < depth and unit * VLEN + l < size else 0
