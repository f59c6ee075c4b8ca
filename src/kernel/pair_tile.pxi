# The tile of bfloat16 weights:
#
#     out[r][q] = init[r][q] + sum over k of  w[k][q] * v[r][k]
#
# for R rows r and P vectors of outputs q, as tile.pxi has it, with both factors rounded to bfloat16 and the sums in
# float32. k runs in order, one accumulator an output: so an output is what the float32 tile gives of the rounded
# numbers.
#
# Weights lie in pairs of k, those of an output side by side (pairs.h). Rows of numbers are rounded by `round_rows`,
# once a step for all panels: where the CPU multiplies pairs (`fast`) into pairs, else into floats, and then weights are
# widened to floats as they are read. Where the number of k is odd, the last pair's second weight and number are 0.
#
# Uses real, vf, VLEN (declarations), ROWS, ROW_PANELS, tile_args, call_tile (tile), vi (integer_tile), matrix, isize,
# CHECK (structs), narrow_rows (narrow).

cdef extern from "pairs.h" nogil:
    enum: HAS_PAIRS
    vi load_pairs(const unsigned short* p)
    vi spread_pair(const signed char* p)
    vf add_pairs(vf acc, vi w, vi x)
    vf first_number(vi pairs)
    vf second_number(vi pairs)
    vf round_half(vf v)
    void store_pairs(signed char* p, vf v)
    void store_two_pairs(signed char* p, vf a, vf b)

cdef struct pair_operand:           # one summand
    const unsigned short* w         # w[((k // 2) * P + q) * VLEN * 2 + lane * 2 + 1 - k % 2], aligned
    isize w_panel                   # pair_row: from one panel to the next
    const signed char* v                # row r at v + r * v_row bytes: pairs, or floats
    isize v_row, v_step             # bytes; v_step: from one pair to the next
    isize pairs                     # of k

cdef struct pair_args:
    real* out                       # out[r * out_row + q * VLEN]
    isize out_row
    const real* init                # where the sums start, as out, and may be out; init_row 0: the same for all rows
    isize init_row
    isize out_panel, init_panel     # pair_row: from one panel to the next
    isize operands                  # how many of `of` are summed
    pair_operand[2] of              # summed in this order: x W_ih, then h W_hh


# ---- Rows ----------------------------------------------------------------------------------------

# Bytes of a rounded row of n numbers: whole vectors, so that it may be read and written by vectors.
cdef inline isize rounded_row(isize n, bint fast) noexcept nogil:
    return (n * (2 if fast else <isize>sizeof(real)) + 63) // 64 * 64


cdef inline void round_vector(signed char* out, isize i, vf v, const int fast) noexcept nogil:
    if fast:
        store_pairs(out + i * 2, v)
    else:
        vstore(<real*>out + i, round_half(v))


cdef inline void round_row(const real* v, isize n, signed char* out, const int fast) noexcept nogil:
    cdef isize i, whole = n // VLEN * VLEN, done = 0
    if fast:
        for i in range(n // (2 * VLEN)):
            store_two_pairs(out + 4 * i * VLEN, vload(v + 2 * i * VLEN), vload(v + (2 * i + 1) * VLEN))
        done = n // (2 * VLEN) * 2
    for i in range(done, n // VLEN):
        round_vector(out, i * VLEN, vload(v + i * VLEN), fast)
    if whole < n:
        round_vector(out, whole, vload_part(v + whole, n - whole), fast)
    if not fast and n % 2 and VLEN == 1:        # the second number of the last pair
        (<real*>out)[n] = 0


# Rounds R rows of n numbers, v_row apart.
cdef inline void round_rows(const real* v, isize v_row, isize n, isize R, signed char* out, isize out_row,
                            bint fast) noexcept nogil:
    cdef isize r
    for r in range(R):
        if HAS_PAIRS and fast:
            round_row(v + r * v_row, n, out + r * out_row, HAS_PAIRS)
        else:
            round_row(v + r * v_row, n, out + r * out_row, False)


# ---- The tile ------------------------------------------------------------------------------------

cdef inline vf half_of(const unsigned short* w, const int second) noexcept nogil:
    return second_number(load_pairs(w)) if second else first_number(load_pairs(w))


# One pair of k without the CPU's instruction: one FMA after the other, as in tile.pxi.
cdef inline void add_widened(vf* acc, const unsigned short* w, const signed char* v, isize v_row, const int R,
                             const int P, const int second) noexcept nogil:
    cdef vf b[8]
    cdef vf x
    cdef isize r, q
    if R > P:
        for q in range(P):
            b[q] = half_of(w + q * 2 * VLEN, second)
        for r in range(R):
            x = vset((<const real*>(v + r * v_row))[second])
            for q in range(P):
                acc[r * P + q] = vfma(b[q], x, acc[r * P + q])
    else:
        for r in range(R):
            b[r] = vset((<const real*>(v + r * v_row))[second])
        for q in range(P):
            x = half_of(w + q * 2 * VLEN, second)
            for r in range(R):
                acc[r * P + q] = vfma(x, b[r], acc[r * P + q])


# The same with it: the operand with fewer vectors stays in registers.
cdef inline void add_paired(vf* acc, const unsigned short* w, const signed char* v, isize v_row, const int R,
                            const int P) noexcept nogil:
    cdef vi b[8]
    cdef vi x
    cdef isize r, q
    if R > P:
        for q in range(P):
            b[q] = load_pairs(w + q * 2 * VLEN)
        for r in range(R):
            x = spread_pair(v + r * v_row)
            for q in range(P):
                acc[r * P + q] = add_pairs(acc[r * P + q], b[q], x)
    else:
        for r in range(R):
            b[r] = spread_pair(v + r * v_row)
        for q in range(P):
            x = load_pairs(w + q * 2 * VLEN)
            for r in range(R):
                acc[r * P + q] = add_pairs(acc[r * P + q], x, b[r])


cdef inline void pair_tile(const pair_args* a, const int R, const int P, const int fast) noexcept nogil:
    cdef vf acc[32]
    cdef isize r, q, k, i, v_row, v_step
    cdef const unsigned short* w
    cdef const signed char* v
    for r in range(R):
        for q in range(P):
            acc[r * P + q] = vload(a.init + r * a.init_row + q * VLEN)
    for i in range(a.operands):
        w = a.of[i].w
        v = a.of[i].v
        v_row = a.of[i].v_row
        v_step = a.of[i].v_step
        for k in range(a.of[i].pairs):
            if fast:
                add_paired(acc, w, v, v_row, R, P)
            else:
                add_widened(acc, w, v, v_row, R, P, 0)
                add_widened(acc, w, v, v_row, R, P, 1)
            v += v_step
            w += P * 2 * VLEN
    for r in range(R):
        for q in range(P):
            vstore(a.out + r * a.out_row + q * VLEN, acc[r * P + q])


# One row, Q panels at once: enough independent sums to hide the latency of a product. Each sum has the same order.
cdef inline void pair_row(const pair_args* a, const int P, const int Q, const int fast) noexcept nogil:
    cdef vf acc[16]
    cdef isize q, p, k, i, w_panel
    cdef const unsigned short* w
    cdef const signed char* v
    for p in range(Q):
        for q in range(P):
            acc[p * P + q] = vload(a.init + p * a.init_panel + q * VLEN)
    for i in range(a.operands):
        w = a.of[i].w
        w_panel = a.of[i].w_panel
        v = a.of[i].v
        for k in range(a.of[i].pairs):
            for p in range(Q):
                if fast:
                    add_paired(acc + p * P, w + p * w_panel, v, 0, 1, P)
                else:
                    add_widened(acc + p * P, w + p * w_panel, v, 0, 1, P, 0)
                    add_widened(acc + p * P, w + p * w_panel, v, 0, 1, P, 1)
            v += 4 if fast else 2 * sizeof(real)
            w += P * 2 * VLEN
    for p in range(Q):
        for q in range(P):
            vstore(a.out + p * a.out_panel + q * VLEN, acc[p * P + q])


# ---- Instances, one a line: with the CPU's instruction for pairs pair_<rows>_<vectors>, without it wider_... -------

cdef void pair_1_1(const pair_args* a) noexcept nogil: pair_tile(a, 1, 1, HAS_PAIRS)
cdef void pair_2_1(const pair_args* a) noexcept nogil: pair_tile(a, 2, 1, HAS_PAIRS)
cdef void pair_3_1(const pair_args* a) noexcept nogil: pair_tile(a, 3, 1, HAS_PAIRS)
cdef void pair_4_1(const pair_args* a) noexcept nogil: pair_tile(a, 4, 1, HAS_PAIRS)
cdef void pair_5_1(const pair_args* a) noexcept nogil: pair_tile(a, 5, 1, HAS_PAIRS)
cdef void pair_6_1(const pair_args* a) noexcept nogil: pair_tile(a, 6, 1, HAS_PAIRS)
cdef void pair_7_1(const pair_args* a) noexcept nogil: pair_tile(a, 7, 1, HAS_PAIRS)
cdef void pair_8_1(const pair_args* a) noexcept nogil: pair_tile(a, 8, 1, HAS_PAIRS)
cdef void pair_1_2(const pair_args* a) noexcept nogil: pair_tile(a, 1, 2, HAS_PAIRS)
cdef void pair_2_2(const pair_args* a) noexcept nogil: pair_tile(a, 2, 2, HAS_PAIRS)
cdef void pair_3_2(const pair_args* a) noexcept nogil: pair_tile(a, 3, 2, HAS_PAIRS)
cdef void pair_4_2(const pair_args* a) noexcept nogil: pair_tile(a, 4, 2, HAS_PAIRS)
cdef void pair_5_2(const pair_args* a) noexcept nogil: pair_tile(a, 5, 2, HAS_PAIRS)
cdef void pair_6_2(const pair_args* a) noexcept nogil: pair_tile(a, 6, 2, HAS_PAIRS)
cdef void pair_7_2(const pair_args* a) noexcept nogil: pair_tile(a, 7, 2, HAS_PAIRS)
cdef void pair_8_2(const pair_args* a) noexcept nogil: pair_tile(a, 8, 2, HAS_PAIRS)
cdef void pair_1_3(const pair_args* a) noexcept nogil: pair_tile(a, 1, 3, HAS_PAIRS)
cdef void pair_2_3(const pair_args* a) noexcept nogil: pair_tile(a, 2, 3, HAS_PAIRS)
cdef void pair_3_3(const pair_args* a) noexcept nogil: pair_tile(a, 3, 3, HAS_PAIRS)
cdef void pair_4_3(const pair_args* a) noexcept nogil: pair_tile(a, 4, 3, HAS_PAIRS)
cdef void pair_5_3(const pair_args* a) noexcept nogil: pair_tile(a, 5, 3, HAS_PAIRS)
cdef void pair_6_3(const pair_args* a) noexcept nogil: pair_tile(a, 6, 3, HAS_PAIRS)
cdef void pair_7_3(const pair_args* a) noexcept nogil: pair_tile(a, 7, 3, HAS_PAIRS)
cdef void pair_8_3(const pair_args* a) noexcept nogil: pair_tile(a, 8, 3, HAS_PAIRS)
cdef void pair_1_4(const pair_args* a) noexcept nogil: pair_tile(a, 1, 4, HAS_PAIRS)
cdef void pair_2_4(const pair_args* a) noexcept nogil: pair_tile(a, 2, 4, HAS_PAIRS)
cdef void pair_3_4(const pair_args* a) noexcept nogil: pair_tile(a, 3, 4, HAS_PAIRS)
cdef void pair_4_4(const pair_args* a) noexcept nogil: pair_tile(a, 4, 4, HAS_PAIRS)
cdef void pair_5_4(const pair_args* a) noexcept nogil: pair_tile(a, 5, 4, HAS_PAIRS)
cdef void pair_6_4(const pair_args* a) noexcept nogil: pair_tile(a, 6, 4, HAS_PAIRS)
cdef void pair_row_1(const pair_args* a) noexcept nogil: pair_row(a, 1, 4, HAS_PAIRS)
cdef void pair_row_2(const pair_args* a) noexcept nogil: pair_row(a, 2, 4, HAS_PAIRS)
cdef void pair_row_3(const pair_args* a) noexcept nogil: pair_row(a, 3, 2, HAS_PAIRS)
cdef void pair_row_4(const pair_args* a) noexcept nogil: pair_row(a, 4, 2, HAS_PAIRS)

cdef void wider_1_1(const pair_args* a) noexcept nogil: pair_tile(a, 1, 1, False)
cdef void wider_2_1(const pair_args* a) noexcept nogil: pair_tile(a, 2, 1, False)
cdef void wider_3_1(const pair_args* a) noexcept nogil: pair_tile(a, 3, 1, False)
cdef void wider_4_1(const pair_args* a) noexcept nogil: pair_tile(a, 4, 1, False)
cdef void wider_5_1(const pair_args* a) noexcept nogil: pair_tile(a, 5, 1, False)
cdef void wider_6_1(const pair_args* a) noexcept nogil: pair_tile(a, 6, 1, False)
cdef void wider_7_1(const pair_args* a) noexcept nogil: pair_tile(a, 7, 1, False)
cdef void wider_8_1(const pair_args* a) noexcept nogil: pair_tile(a, 8, 1, False)
cdef void wider_1_2(const pair_args* a) noexcept nogil: pair_tile(a, 1, 2, False)
cdef void wider_2_2(const pair_args* a) noexcept nogil: pair_tile(a, 2, 2, False)
cdef void wider_3_2(const pair_args* a) noexcept nogil: pair_tile(a, 3, 2, False)
cdef void wider_4_2(const pair_args* a) noexcept nogil: pair_tile(a, 4, 2, False)
cdef void wider_5_2(const pair_args* a) noexcept nogil: pair_tile(a, 5, 2, False)
cdef void wider_6_2(const pair_args* a) noexcept nogil: pair_tile(a, 6, 2, False)
cdef void wider_7_2(const pair_args* a) noexcept nogil: pair_tile(a, 7, 2, False)
cdef void wider_8_2(const pair_args* a) noexcept nogil: pair_tile(a, 8, 2, False)
cdef void wider_1_3(const pair_args* a) noexcept nogil: pair_tile(a, 1, 3, False)
cdef void wider_2_3(const pair_args* a) noexcept nogil: pair_tile(a, 2, 3, False)
cdef void wider_3_3(const pair_args* a) noexcept nogil: pair_tile(a, 3, 3, False)
cdef void wider_4_3(const pair_args* a) noexcept nogil: pair_tile(a, 4, 3, False)
cdef void wider_5_3(const pair_args* a) noexcept nogil: pair_tile(a, 5, 3, False)
cdef void wider_6_3(const pair_args* a) noexcept nogil: pair_tile(a, 6, 3, False)
cdef void wider_7_3(const pair_args* a) noexcept nogil: pair_tile(a, 7, 3, False)
cdef void wider_8_3(const pair_args* a) noexcept nogil: pair_tile(a, 8, 3, False)
cdef void wider_1_4(const pair_args* a) noexcept nogil: pair_tile(a, 1, 4, False)
cdef void wider_2_4(const pair_args* a) noexcept nogil: pair_tile(a, 2, 4, False)
cdef void wider_3_4(const pair_args* a) noexcept nogil: pair_tile(a, 3, 4, False)
cdef void wider_4_4(const pair_args* a) noexcept nogil: pair_tile(a, 4, 4, False)
cdef void wider_5_4(const pair_args* a) noexcept nogil: pair_tile(a, 5, 4, False)
cdef void wider_6_4(const pair_args* a) noexcept nogil: pair_tile(a, 6, 4, False)
cdef void wider_row_1(const pair_args* a) noexcept nogil: pair_row(a, 1, 4, False)
cdef void wider_row_2(const pair_args* a) noexcept nogil: pair_row(a, 2, 4, False)
cdef void wider_row_3(const pair_args* a) noexcept nogil: pair_row(a, 3, 2, False)
cdef void wider_row_4(const pair_args* a) noexcept nogil: pair_row(a, 4, 2, False)

ctypedef void (*pair_function)(const pair_args*) noexcept nogil

cdef pair_function[5][9] PAIR_TILES, WIDER_TILES  # [vectors][rows]
cdef pair_function[5] PAIR_ROW, WIDER_ROW          # [vectors]: one row, ROW_PANELS panels

PAIR_TILES[1] = [NULL, pair_1_1, pair_2_1, pair_3_1, pair_4_1, pair_5_1, pair_6_1, pair_7_1, pair_8_1]
PAIR_TILES[2] = [NULL, pair_1_2, pair_2_2, pair_3_2, pair_4_2, pair_5_2, pair_6_2, pair_7_2, pair_8_2]
PAIR_TILES[3] = [NULL, pair_1_3, pair_2_3, pair_3_3, pair_4_3, pair_5_3, pair_6_3, pair_7_3, pair_8_3]
PAIR_TILES[4] = [NULL, pair_1_4, pair_2_4, pair_3_4, pair_4_4, pair_5_4, pair_6_4, NULL, NULL]
PAIR_ROW = [NULL, pair_row_1, pair_row_2, pair_row_3, pair_row_4]
WIDER_TILES[1] = [NULL, wider_1_1, wider_2_1, wider_3_1, wider_4_1, wider_5_1, wider_6_1, wider_7_1, wider_8_1]
WIDER_TILES[2] = [NULL, wider_1_2, wider_2_2, wider_3_2, wider_4_2, wider_5_2, wider_6_2, wider_7_2, wider_8_2]
WIDER_TILES[3] = [NULL, wider_1_3, wider_2_3, wider_3_3, wider_4_3, wider_5_3, wider_6_3, wider_7_3, wider_8_3]
WIDER_TILES[4] = [NULL, wider_1_4, wider_2_4, wider_3_4, wider_4_4, wider_5_4, wider_6_4, NULL, NULL]
WIDER_ROW = [NULL, wider_row_1, wider_row_2, wider_row_3, wider_row_4]


# An operand that is panel p of a packed matrix, and those after it, times rounded rows.
cdef inline void set_pairs(pair_operand* of, const matrix* w, isize p, const signed char* v,
                           isize v_row) noexcept nogil:
    of.pairs = (w.depth + 1) // 2
    of.w_panel = of.pairs * w.width * 2 * VLEN
    of.w = <const unsigned short*>w.data + p * of.w_panel
    of.v, of.v_row = v, v_row
    of.v_step = sizeof(real) if w.fast else 2 * sizeof(real)


# R rows of one panel of P vectors.
cdef inline void call_pairs(const pair_args* a, isize P, isize R, bint fast) noexcept nogil:
    CHECK(1 <= P and P <= 4 and 1 <= R and R <= ROWS[P] and a.operands >= 1 and a.operands <= 2)
    CHECK(<size_t>a.of[0].w % sizeof(vf) == 0)
    if HAS_PAIRS and fast:
        PAIR_TILES[P][R](a)
    else:
        WIDER_TILES[P][R](a)


# One row of ROW_PANELS[P] panels.
cdef inline void call_pair_row(const pair_args* a, isize P, bint fast) noexcept nogil:
    CHECK(1 <= P and P <= 4 and a.operands >= 1 and a.operands <= 2 and <size_t>a.of[0].w % sizeof(vf) == 0)
    if HAS_PAIRS and fast:
        PAIR_ROW[P](a)
    else:
        WIDER_ROW[P](a)


# out[r][q] = init[r][q] + panel p of w times row r of v, for R rows from row `first` of v.
cdef inline void pair_product(const matrix* w, isize p, const narrow_rows* v, isize first, const real* init,
                              isize init_row, real* out, isize out_row, isize R) noexcept nogil:
    cdef pair_args a
    set_pairs(&a.of[0], w, p, v.data + first * v.row, v.row)
    a.out, a.out_row, a.init, a.init_row, a.operands = out, out_row, init, init_row, 1
    call_pairs(&a, w.width, R, w.fast)


# out[r][q] = init[q] + panel p of w_ih times row r of x + panel p of w_hh times row r of h, as one sum.
cdef inline void pair_products(const matrix* w_ih, const matrix* w_hh, isize p, const narrow_rows* x,
                               const narrow_rows* h, isize first, const real* init, real* out, isize out_row,
                               isize R) noexcept nogil:
    cdef pair_args a
    set_pairs(&a.of[0], w_ih, p, x.data + first * x.row, x.row)
    set_pairs(&a.of[1], w_hh, p, h.data + first * h.row, h.row)
    a.out, a.out_row, a.init, a.init_row, a.operands = out, out_row, init, 0, 2
    call_pairs(&a, w_ih.width, R, w_ih.fast)


# As pair_product, of row `first` alone and panels p0..p1 of w, whose starts lie init_panel apart.
cdef inline void pair_row_product(const matrix* w, isize p0, isize p1, const narrow_rows* v, isize first,
                                  const real* init, isize init_panel, real* out, bint backwards) noexcept nogil:
    cdef pair_args a
    cdef isize done = 0, count = p1 - p0, p, Q
    a.out_row = a.init_row = 0
    a.out_panel, a.init_panel, a.operands = w.width * VLEN, init_panel, 1
    while done < count:
        Q = ROW_PANELS[w.width] if done + ROW_PANELS[w.width] <= count else 1
        p = count - done - Q if backwards else done
        set_pairs(&a.of[0], w, p0 + p, v.data + first * v.row, v.row)
        a.out, a.init = out + p * w.width * VLEN, init + p * init_panel
        if Q > 1:
            call_pair_row(&a, w.width, w.fast)
        else:
            call_pairs(&a, w.width, 1, w.fast)
        done += Q


# Without the CPU's instruction, many rows are multiplied by the float32 tile with a panel that is widened once for all
# of them; rounded rows are floats then, and the sums are the same.

# Widens panel p to floats as tile.pxi has them: [k][width][VLEN], an even number of k.
cdef inline void widen_panel(const matrix* w, isize p, real* out) noexcept nogil:
    cdef isize pairs = (w.depth + 1) // 2, P = w.width, k, q
    cdef const unsigned short* weights = <const unsigned short*>w.data + p * pairs * P * 2 * VLEN
    cdef vi pair
    for k in range(pairs):
        for q in range(P):
            pair = load_pairs(weights + q * 2 * VLEN)
            vstore(out + q * VLEN, first_number(pair))
            vstore(out + (P + q) * VLEN, second_number(pair))
        weights += P * 2 * VLEN
        out += 2 * P * VLEN


# As pair_product, with panel p widened.
cdef inline void widened_product(const matrix* w, const real* widened, const narrow_rows* v, isize first,
                                 const real* init, isize init_row, real* out, isize out_row, isize R) noexcept nogil:
    cdef tile_args a
    a.acc, a.acc_row, a.init, a.init_row = out, out_row, init, init_row
    a.w_step, a.operands = w.width * VLEN, 1
    a.of[0].w, a.of[0].outer, a.of[0].depth = widened, 1, w.depth
    a.of[0].v, a.of[0].v_step, a.of[0].v_outer = <const real*>(v.data + first * v.row), 1, 0
    a.of[0].v_row = v.row // <isize>sizeof(real)
    call_tile(&a, w.width, R)


# Packs bfloat16 weights in pairs of k: the arguments are those of `pack`.
cdef void pack_pairs(void* out, const void* w, isize row, isize column, isize size, isize u0, isize u1,
                     const int* gate, isize gates, isize width, isize depth) noexcept nogil:
    cdef isize vector, unit, k, l, pairs = (depth + 1) // 2
    cdef const unsigned short* source
    cdef unsigned short* target
    for vector in range(u0 * gates, u1 * gates):
        unit = vector // gates
        source = <const unsigned short*>w + (gate[vector % gates] * size + unit * VLEN) * row
        target = <unsigned short*>out + ((vector // width) * pairs * width + vector % width) * VLEN * 2
        for k in range(pairs * 2):
            for l in range(VLEN):
                target[k // 2 * width * VLEN * 2 + l * 2 + 1 - k % 2] = (
                    source[l * row + k * column] if k < depth and unit * VLEN + l < size else 0)
