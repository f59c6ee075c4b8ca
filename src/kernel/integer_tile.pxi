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
    dot_acc dot_zero()
    dot_acc dot(dot_acc acc, dot_w w, dot_x x, const int fast)
    vi dot_sums(dot_acc a, const int fast)
    vf from_ints(vi a)
    vi abs_bits(vf v)
    vi zero_bits()
    vi vi_max(vi a, vi b)
    vi vi_add(vi a, vi b)
    real largest_lane(vi a)
    void store_bytes(signed char* p, vf v, const int flip)
    bits bits_of(real r)

cdef extern from "math.h" nogil:
    double NAN

cdef enum:
    GROUP = 4                       # numbers k that one instruction multiplies for each output
    SMALLEST = 0x04000000           # the bits of 2^-119: from here on m / 127 and 127 / m are normal numbers
    INFINITE = 0x7f800000           # the bits of infinity; those of NaN are greater
    ROWS_AHEAD = 4                  # how many rows ahead a row to be quantised is prefetched

cdef struct dot_args:
    real* out                       # out[r * out_row + q * VLEN]
    isize out_row
    const real* init                # where the sums start, as out; init_row 0: the same for all rows; never out itself
    isize init_row
    const signed char* w            # w[((k // GROUP) * P + q) * VLEN * GROUP + lane * GROUP + k % GROUP], aligned
    const real* w_scale             # [P][VLEN]
    const int* offset               # [P][VLEN]: fast: -128 * the sum of an output's weights; else unused
    narrow_rows v
    isize groups                    # k in groups of GROUP, the last one padded with weights of 0
    isize panels                    # dot_row: panels to do, one after the other in w, w_scale, offset and out, and
    isize init_panel                # init_panel apart in init;
    bint backwards                  # the last one first


# ---- Rows ----------------------------------------------------------------------------------------

# Bytes of a quantised row of n numbers: whole vectors, so that it may be read and written by vectors.
cdef inline isize quantised_row(isize n) noexcept nogil:
    return (n + 63) // 64 * 64


cdef inline void quantise_row(const real* v, const real* column, isize n, signed char* out, real* scale,
                              const int flip) noexcept nogil:
    cdef vi largest = zero_bits()
    cdef vf factor
    cdef real m
    cdef isize i, vectors = n // VLEN, whole = vectors * VLEN
    for i in range(vectors):
        largest = vi_max(largest, abs_bits(vload(v + i * VLEN) * vload(column + i * VLEN)))
    if whole < n:
        largest = vi_max(largest, abs_bits(vload_part(v + whole, n - whole) * vload(column + whole)))
    m = largest_lane(largest)
    factor = vset(127 / m)          # begun before the branch, since the products wait for it
    if bits_of(m) < SMALLEST or bits_of(m) >= INFINITE:
        quantise_extreme(v, n, out, scale, bits_of(m), flip)
        return
    scale[0] = m / 127
    for i in range(vectors):
        store_bytes(out + i * VLEN, vload(v + i * VLEN) * vload(column + i * VLEN) * factor, flip)
    if whole < n:
        store_bytes(out + whole, vload_part(v + whole, n - whole) * vload(column + whole) * factor, flip)


# A row whose largest number, as bits, is zero, infinite or NaN.
cdef void quantise_extreme(const real* v, isize n, signed char* out, real* scale, bits largest,
                           int flip) noexcept nogil:
    cdef isize k
    memset(out, flip, <size_t>quantised_row(n))
    scale[0] = 0 if largest < SMALLEST else INFINITY if largest == INFINITE else NAN
    if largest == INFINITE:
        for k in range(n):
            out[k] = <signed char>((v[k] == INFINITY) - (v[k] == -INFINITY)) ^ flip


# Quantises R rows, v_row apart, for products with w.
cdef inline void quantise_rows(const matrix* w, const real* v, isize v_row, isize R,
                               const narrow_rows* out) noexcept nogil:
    cdef const real* column = <const real*>w.column
    cdef isize r
    for r in range(R):
        if r + ROWS_AHEAD < R:
            prefetch_shared(v + (r + ROWS_AHEAD) * v_row, w.depth * <isize>sizeof(real))
        if HAS_DOT and w.fast:
            quantise_row(v + r * v_row, column, w.depth, out.data + r * out.row, out.scale + r, FLIP)
        else:
            quantise_row(v + r * v_row, column, w.depth, out.data + r * out.row, out.scale + r, 0)


# ---- The tile ------------------------------------------------------------------------------------

cdef inline void dot_rows(const dot_args* a, const int R, const int P, const int fast) noexcept nogil:
    cdef dot_acc acc[8][4]
    cdef dot_w b[4]
    cdef dot_x x
    cdef vf scale
    cdef isize r, q, k, v_row = a.v.row, init_row = a.init_row, out_row = a.out_row
    cdef const signed char* w = a.w
    cdef const signed char* v = a.v.data
    cdef const real* init
    cdef real* out
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
    for q in range(P):              # short bodies, so that the compiler unrolls them and keeps acc in registers
        scale = vload(a.w_scale + q * VLEN)
        init = a.init + q * VLEN
        out = a.out + q * VLEN
        for r in range(R):
            vstore(out, vfma(from_ints(dot_sums(acc[r][q], fast)) * vset(a.v.scale[r]), scale, vload(init)))
            init += init_row
            out += out_row


# One row of one panel: as many chains for each output as hide the latency of the products. Whole numbers may be summed
# in any order.
cdef inline void dot_panel(const dot_args* a, isize p, const int P, const int chains, const int fast) noexcept nogil:
    cdef dot_acc acc[8][4]
    cdef dot_x x
    cdef vf scale = vset(a.v.scale[0])
    cdef vi total
    cdef isize q, c, k, step = P * VLEN * GROUP
    cdef const signed char* w = a.w + p * a.groups * step
    cdef const signed char* v = a.v.data
    for q in range(P):
        acc[0][q] = dot_start(a.offset + (p * P + q) * VLEN)
        for c in range(1, chains):
            acc[c][q] = dot_zero()
    for k in range(a.groups // chains):
        for c in range(chains):
            x = dot_spread(v + c * GROUP)
            for q in range(P):
                acc[c][q] = dot(acc[c][q], dot_weights(w + c * step + q * VLEN * GROUP), x, fast)
        w += chains * step
        v += chains * GROUP
    for k in range(a.groups % chains):
        x = dot_spread(v)
        for q in range(P):
            acc[0][q] = dot(acc[0][q], dot_weights(w + q * VLEN * GROUP), x, fast)
        w += step
        v += GROUP
    for q in range(P):
        total = dot_sums(acc[0][q], fast)
        for c in range(1, chains):
            total = vi_add(total, dot_sums(acc[c][q], fast))
        vstore(a.out + (p * P + q) * VLEN, vfma(from_ints(total) * scale, vload(a.w_scale + (p * P + q) * VLEN),
                                                vload(a.init + p * a.init_panel + q * VLEN)))


cdef inline void dot_row(const dot_args* a, const int P, const int chains, const int fast) noexcept nogil:
    cdef isize i
    for i in range(a.panels):
        dot_panel(a, a.panels - 1 - i if a.backwards else i, P, chains, fast)


# ---- Instances, one a line: with the CPU's instruction for four products dot_<rows>_<vectors>, without it wide_... --

cdef void dot_1_1(const dot_args* a) noexcept nogil: dot_row(a, 1, 8, HAS_DOT)
cdef void dot_2_1(const dot_args* a) noexcept nogil: dot_rows(a, 2, 1, HAS_DOT)
cdef void dot_3_1(const dot_args* a) noexcept nogil: dot_rows(a, 3, 1, HAS_DOT)
cdef void dot_4_1(const dot_args* a) noexcept nogil: dot_rows(a, 4, 1, HAS_DOT)
cdef void dot_5_1(const dot_args* a) noexcept nogil: dot_rows(a, 5, 1, HAS_DOT)
cdef void dot_6_1(const dot_args* a) noexcept nogil: dot_rows(a, 6, 1, HAS_DOT)
cdef void dot_7_1(const dot_args* a) noexcept nogil: dot_rows(a, 7, 1, HAS_DOT)
cdef void dot_8_1(const dot_args* a) noexcept nogil: dot_rows(a, 8, 1, HAS_DOT)
cdef void dot_1_2(const dot_args* a) noexcept nogil: dot_row(a, 2, 4, HAS_DOT)
cdef void dot_2_2(const dot_args* a) noexcept nogil: dot_rows(a, 2, 2, HAS_DOT)
cdef void dot_3_2(const dot_args* a) noexcept nogil: dot_rows(a, 3, 2, HAS_DOT)
cdef void dot_4_2(const dot_args* a) noexcept nogil: dot_rows(a, 4, 2, HAS_DOT)
cdef void dot_5_2(const dot_args* a) noexcept nogil: dot_rows(a, 5, 2, HAS_DOT)
cdef void dot_6_2(const dot_args* a) noexcept nogil: dot_rows(a, 6, 2, HAS_DOT)
cdef void dot_7_2(const dot_args* a) noexcept nogil: dot_rows(a, 7, 2, HAS_DOT)
cdef void dot_8_2(const dot_args* a) noexcept nogil: dot_rows(a, 8, 2, HAS_DOT)
cdef void dot_1_3(const dot_args* a) noexcept nogil: dot_row(a, 3, 3, HAS_DOT)
cdef void dot_2_3(const dot_args* a) noexcept nogil: dot_rows(a, 2, 3, HAS_DOT)
cdef void dot_3_3(const dot_args* a) noexcept nogil: dot_rows(a, 3, 3, HAS_DOT)
cdef void dot_4_3(const dot_args* a) noexcept nogil: dot_rows(a, 4, 3, HAS_DOT)
cdef void dot_5_3(const dot_args* a) noexcept nogil: dot_rows(a, 5, 3, HAS_DOT)
cdef void dot_6_3(const dot_args* a) noexcept nogil: dot_rows(a, 6, 3, HAS_DOT)
cdef void dot_7_3(const dot_args* a) noexcept nogil: dot_rows(a, 7, 3, HAS_DOT)
cdef void dot_8_3(const dot_args* a) noexcept nogil: dot_rows(a, 8, 3, HAS_DOT)
cdef void dot_1_4(const dot_args* a) noexcept nogil: dot_row(a, 4, 2, HAS_DOT)
cdef void dot_2_4(const dot_args* a) noexcept nogil: dot_rows(a, 2, 4, HAS_DOT)
cdef void dot_3_4(const dot_args* a) noexcept nogil: dot_rows(a, 3, 4, HAS_DOT)
cdef void dot_4_4(const dot_args* a) noexcept nogil: dot_rows(a, 4, 4, HAS_DOT)
cdef void dot_5_4(const dot_args* a) noexcept nogil: dot_rows(a, 5, 4, HAS_DOT)
cdef void dot_6_4(const dot_args* a) noexcept nogil: dot_rows(a, 6, 4, HAS_DOT)

cdef void wide_1_1(const dot_args* a) noexcept nogil: dot_row(a, 1, 8, False)
cdef void wide_2_1(const dot_args* a) noexcept nogil: dot_rows(a, 2, 1, False)
cdef void wide_3_1(const dot_args* a) noexcept nogil: dot_rows(a, 3, 1, False)
cdef void wide_4_1(const dot_args* a) noexcept nogil: dot_rows(a, 4, 1, False)
cdef void wide_5_1(const dot_args* a) noexcept nogil: dot_rows(a, 5, 1, False)
cdef void wide_6_1(const dot_args* a) noexcept nogil: dot_rows(a, 6, 1, False)
cdef void wide_7_1(const dot_args* a) noexcept nogil: dot_rows(a, 7, 1, False)
cdef void wide_8_1(const dot_args* a) noexcept nogil: dot_rows(a, 8, 1, False)
cdef void wide_1_2(const dot_args* a) noexcept nogil: dot_row(a, 2, 4, False)
cdef void wide_2_2(const dot_args* a) noexcept nogil: dot_rows(a, 2, 2, False)
cdef void wide_3_2(const dot_args* a) noexcept nogil: dot_rows(a, 3, 2, False)
cdef void wide_4_2(const dot_args* a) noexcept nogil: dot_rows(a, 4, 2, False)
cdef void wide_5_2(const dot_args* a) noexcept nogil: dot_rows(a, 5, 2, False)
cdef void wide_6_2(const dot_args* a) noexcept nogil: dot_rows(a, 6, 2, False)
cdef void wide_7_2(const dot_args* a) noexcept nogil: dot_rows(a, 7, 2, False)
cdef void wide_8_2(const dot_args* a) noexcept nogil: dot_rows(a, 8, 2, False)
cdef void wide_1_3(const dot_args* a) noexcept nogil: dot_row(a, 3, 3, False)
cdef void wide_2_3(const dot_args* a) noexcept nogil: dot_rows(a, 2, 3, False)
cdef void wide_3_3(const dot_args* a) noexcept nogil: dot_rows(a, 3, 3, False)
cdef void wide_4_3(const dot_args* a) noexcept nogil: dot_rows(a, 4, 3, False)
cdef void wide_5_3(const dot_args* a) noexcept nogil: dot_rows(a, 5, 3, False)
cdef void wide_6_3(const dot_args* a) noexcept nogil: dot_rows(a, 6, 3, False)
cdef void wide_7_3(const dot_args* a) noexcept nogil: dot_rows(a, 7, 3, False)
cdef void wide_8_3(const dot_args* a) noexcept nogil: dot_rows(a, 8, 3, False)
cdef void wide_1_4(const dot_args* a) noexcept nogil: dot_row(a, 4, 2, False)
cdef void wide_2_4(const dot_args* a) noexcept nogil: dot_rows(a, 2, 4, False)
cdef void wide_3_4(const dot_args* a) noexcept nogil: dot_rows(a, 3, 4, False)
cdef void wide_4_4(const dot_args* a) noexcept nogil: dot_rows(a, 4, 4, False)
cdef void wide_5_4(const dot_args* a) noexcept nogil: dot_rows(a, 5, 4, False)
cdef void wide_6_4(const dot_args* a) noexcept nogil: dot_rows(a, 6, 4, False)

ctypedef void (*dot_function)(const dot_args*) noexcept nogil

cdef dot_function[5][9] DOT_TILES, WIDE_TILES    # [vectors][rows]
cdef isize[5] DOT_ROWS                           # the most rows of a tile

DOT_TILES[1] = [NULL, dot_1_1, dot_2_1, dot_3_1, dot_4_1, dot_5_1, dot_6_1, dot_7_1, dot_8_1]
DOT_TILES[2] = [NULL, dot_1_2, dot_2_2, dot_3_2, dot_4_2, dot_5_2, dot_6_2, dot_7_2, dot_8_2]
DOT_TILES[3] = [NULL, dot_1_3, dot_2_3, dot_3_3, dot_4_3, dot_5_3, dot_6_3, dot_7_3, dot_8_3]
DOT_TILES[4] = [NULL, dot_1_4, dot_2_4, dot_3_4, dot_4_4, dot_5_4, dot_6_4, NULL, NULL]
WIDE_TILES[1] = [NULL, wide_1_1, wide_2_1, wide_3_1, wide_4_1, wide_5_1, wide_6_1, wide_7_1, wide_8_1]
WIDE_TILES[2] = [NULL, wide_1_2, wide_2_2, wide_3_2, wide_4_2, wide_5_2, wide_6_2, wide_7_2, wide_8_2]
WIDE_TILES[3] = [NULL, wide_1_3, wide_2_3, wide_3_3, wide_4_3, wide_5_3, wide_6_3, wide_7_3, wide_8_3]
WIDE_TILES[4] = [NULL, wide_1_4, wide_2_4, wide_3_4, wide_4_4, wide_5_4, wide_6_4, NULL, NULL]
DOT_ROWS = [0, DOT_ROWS1, DOT_ROWS2, DOT_ROWS3, DOT_ROWS4]


# Sets what products of rows of v, from row `first` on, with panel p of w and those after it need.
cdef inline void set_product(dot_args* a, const matrix* w, isize p, const narrow_rows* v, isize first) noexcept nogil:
    cdef isize P = w.width
    a.groups = (w.depth + GROUP - 1) // GROUP
    a.w = <const signed char*>w.data + p * a.groups * P * VLEN * GROUP
    a.w_scale = <const real*>w.scale + p * P * VLEN
    a.offset = <const int*>w.offset + p * P * VLEN
    a.v.data, a.v.row, a.v.scale = v.data + first * v.row, v.row, v.scale + first


cdef inline void call_dot(const matrix* w, const dot_args* a, isize R) noexcept nogil:
    CHECK(1 <= w.width and w.width <= 4 and 1 <= R and R <= DOT_ROWS[w.width] and <size_t>a.w % sizeof(vf) == 0)
    if HAS_DOT and w.fast:
        DOT_TILES[w.width][R](a)
    else:
        WIDE_TILES[w.width][R](a)


# out[r][q] = init[r][q] + panel p of w times row r of v, for R rows from row `first` of v.
cdef inline void integer_product(const matrix* w, isize p, const narrow_rows* v, isize first, const real* init,
                                 isize init_row, real* out, isize out_row, isize R) noexcept nogil:
    cdef dot_args a
    cdef isize r
    set_product(&a, w, p, v, first)
    a.out, a.out_row, a.init, a.init_row = out, out_row, init, init_row
    a.panels, a.init_panel, a.backwards = 1, 0, False
    call_dot(w, &a, R)
    for r in range(R):
        if a.v.scale[r] == INFINITY:
            infinite_sums(&a, w, 0, r)


# The same of row `first` alone and panels p0..p1 of w, whose starts lie init_panel apart: the weights are read in one
# go.
cdef inline void integer_row_product(const matrix* w, isize p0, isize p1, const narrow_rows* v, isize first,
                                     const real* init, isize init_panel, real* out, bint backwards) noexcept nogil:
    cdef dot_args a
    cdef isize p
    set_product(&a, w, p0, v, first)
    a.out, a.out_row, a.init, a.init_row = out, 0, init, 0
    a.panels, a.init_panel, a.backwards = p1 - p0, init_panel, backwards
    call_dot(w, &a, 1)
    if a.v.scale[0] == INFINITY:
        for p in range(p1 - p0):
            infinite_sums(&a, w, p, 0)


# A row with infinite numbers: each output is infinite with the sign of w v, NaN where both signs meet, and the start
# alone where all weights of the infinite numbers are 0.
cdef void infinite_sums(const dot_args* a, const matrix* w, isize p, isize r) noexcept nogil:
    cdef const signed char* v = a.v.data + r * a.v.row
    cdef isize i, k, sign, width = w.width * VLEN
    cdef const signed char* weights = a.w + p * a.groups * width * GROUP
    cdef const real* init = a.init + r * a.init_row + p * a.init_panel
    cdef real* out = a.out + r * a.out_row + p * width
    cdef signed char number
    for i in range(width):
        out[i] = init[i]
        for k in range(a.groups * GROUP):
            number = v[k]
            if HAS_DOT and w.fast:
                number ^= FLIP
            sign = number * weights[((k // GROUP) * width + i) * GROUP + k % GROUP]
            if sign:
                out[i] += INFINITY if sign > 0 else -INFINITY


# Packs int8 weights: the arguments are those of `pack`, and the last group of k is padded with zeros.
cdef void pack_narrow(void* out, const void* w, isize row, isize column, isize size, isize u0, isize u1,
                      const int* gate, isize gates, isize width, isize depth) noexcept nogil:
    cdef isize vector, unit, k, l, at, groups = (depth + GROUP - 1) // GROUP
    cdef const signed char* source
    cdef signed char* target
    for vector in range(u0 * gates, u1 * gates):
        unit = vector // gates
        source = <const signed char*>w + (gate[vector % gates] * size + unit * VLEN) * row
        target = <signed char*>out + ((vector // width) * groups * width + vector % width) * VLEN * GROUP
        for k in range(groups * GROUP):
            at = k // GROUP * width * VLEN * GROUP + k % GROUP
            for l in range(VLEN):
                target[at + l * GROUP] = source[l * row + k * column] if k < depth and unit * VLEN + l < size else 0
