# LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000; gates in torch's order i, f, g, o):
#
#     i, f, o = sigmoid(W x + b_ih + W h + b_hh)      g = tanh(...)
#     c_t = f c_{t-1} + i g                           m_t = o tanh(c_t)        h_t = m_t, or W_hr m_t
#
# With options: peepholes (Gers & Schmidhuber 2000) add p_i c_{t-1}, p_f c_{t-1}, p_o c_t to the sums of i, f, o;
# coupled gates have f = 1 - i (Greff et al. 2017); other activations f (i, f, o), g, h (of c_t). Forward saves the
# gates for the gradient, or with options their sums.
#
# Uses forward_args, backward_args (structs), step, saved_row, unit_width, extra_row, row_offset, store_state,
# store_output (forward), take_state_gradient, state_gradient (backward), vactivate, vslope (declarations).

cdef inline void lstm_cells(forward_args* args, step* t, const vf* acc, isize p, isize Q, isize n,
                            isize R) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize j, q, r, row = unit_width(run)
    cdef vf i_complement, f, g, o_complement, c, m
    cdef real* saved
    for q in range(Q):
        j = p + q
        for r in range(n, n + R):
            i_complement = vsigmoid_complement(acc[0])      # 1 - i
            f = vsigmoid(acc[1])
            g = vtanh(acc[2])
            o_complement = vsigmoid_complement(acc[3])      # 1 - o
            acc += 4
            # i g = g - (1-i) g, and o tanh(c) likewise: each is rounded once
            c = vfma(f, vload(t.c + r * row + j * VLEN), vfma(-i_complement, g, g))
            m = vtanh(c)
            m = vfma(-o_complement, m, m)
            if run.keep:
                saved = <real*>run.gates + saved_row(run, t, j, r, 4)
                vstore(saved, vset(1) - i_complement)
                vstore(saved + VLEN, f)
                vstore(saved + 2 * VLEN, g)
                vstore(saved + 3 * VLEN, vset(1) - o_complement)
            store_cell(args, t, c, m, j, r)


# c_t and m_t of unit j, row r.
cdef inline void store_cell(forward_args* args, step* t, vf c, vf m, isize j, isize r) noexcept nogil:
    cdef isize row = unit_width(&args.run)
    vstore((t.c_next if r < t.next_active else <real*>args.c_n) + r * row + j * VLEN, c)
    if args.y_c != NULL:
        store_output(t.y_c + row_offset(args.yc_rows, r, args.yc_n), c, j, args.run.cell.hidden)
    if args.run.cell.w_hr.data != NULL:
        vstore(extra_row(&args.run, t, r) + j * VLEN, m)
    else:
        store_state(args, t, m, j, r)


# The peephole weights of unit j, for i, f, o: zero where there are none.
cdef inline void peepholes(const packed_cell* cell, isize j, vf* p) noexcept nogil:
    cdef isize k
    for k in range(3):
        p[k] = vload(<const real*>cell.peephole + (j * 3 + k) * VLEN) if cell.peephole != NULL else vset(0)


cdef void lstm_cells_with_options(forward_args* args, step* t, const vf* acc, isize p, isize Q, isize n,
                                  isize R) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize j, q, r, k, row = unit_width(run)
    cdef vf i, f, c
    cdef vf[4] a
    cdef vf[3] peep
    for q in range(Q):
        j = p + q
        peepholes(cell, j, peep)
        for r in range(n, n + R):
            for k in range(4):
                a[k] = acc[k]
            acc += 4
            c = vload(t.c + r * row + j * VLEN)
            if cell.peephole != NULL:       # adding 0 c instead would not do: c may be infinite
                a[0] = vfma(peep[0], c, a[0])
                a[1] = vfma(peep[1], c, a[1])
            i = vactivate(&cell.f, a[0], cell.clip)
            f = vset(1) - i if cell.coupled else vactivate(&cell.f, a[1], cell.clip)
            c = vfma(f, c, i * vactivate(&cell.g, a[2], cell.clip))
            if cell.peephole != NULL:
                a[3] = vfma(peep[2], c, a[3])
            if run.keep:
                for k in range(4):
                    vstore(<real*>run.gates + saved_row(run, t, j, r, 4) + k * VLEN, a[k])
            store_cell(args, t, c, vactivate(&cell.f, a[3], cell.clip) * vactivate(&cell.h, c, INFINITY), j, r)


# dL/dm_t of unit j: from the projection (dm_rows, one row dm_row long), or all that flows into h_t.
cdef inline vf take_output_gradient(backward_args* args, step* t, isize j, isize n, const real* dm_rows,
                                    isize dm_row) noexcept nogil:
    cdef vf dm
    if args.run.cell.w_hr.data != NULL:
        return vload(dm_rows + n * dm_row + j * VLEN)
    dm = take_state_gradient(args, t, j, n)
    vstore(state_gradient(args, n) + j * VLEN, vset(0))
    return dm


# With dm and dc the sums of all that flows into m_t and c_t:
#
#     do = dm tanh(c) o (1-o)       dc += dm o (1 - tanh(c)^2)      dc_{t-1} = dc f
#     di = dc g i (1-i)             df = dc c_{t-1} f (1-f)         dg = dc i (1 - g^2)
cdef void lstm_gradients(backward_args* args, step* t, isize j, isize n0, isize n1, const real* dm_rows,
                         isize dm_row) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize n, at, row = unit_width(run)
    cdef vf one = vset(1)
    cdef vf i, f, g, o, c_old, tanh_c, dm, dc
    cdef const real* saved
    cdef real* dc_at
    cdef real* out
    for n in range(n0, n1):
        at = saved_row(run, t, j, n, 4)
        saved = <const real*>run.gates + at
        out = <real*>args.dgates + at
        i = vload(saved)
        f = vload(saved + VLEN)
        g = vload(saved + 2 * VLEN)
        o = vload(saved + 3 * VLEN)
        c_old = vload(t.c + n * row + j * VLEN)
        tanh_c = vtanh(vfma(f, c_old, i * g))
        dm = take_output_gradient(args, t, j, n, dm_rows, dm_row)
        dc_at = <real*>args.dc + n * row + j * VLEN
        dc = vfma(dm * o, one - tanh_c * tanh_c, vload(dc_at))
        vstore(dc_at, dc * f)
        vstore(out, dc * g * i * (one - i))
        vstore(out + VLEN, dc * c_old * f * (one - f))
        vstore(out + 2 * VLEN, dc * i * (one - g * g))
        vstore(out + 3 * VLEN, dm * tanh_c * o * (one - o))


# From the saved sums a, with f', g', h' the slopes there:
#
#     do = dm h(c) f'(a_o)          dc += dm o h'(c) + p_o do           dp_o += do c_t
#     di = dc g f'(a_i)             df = dc c_{t-1} f'(a_f)             dp_i, dp_f += di c_{t-1}, df c_{t-1}
#     dg = dc i g'(a_g)             dc_{t-1} = dc f + p_i di + p_f df   coupled: di = dc (g - c_{t-1}) f'(a_i), df = 0
cdef void lstm_gradients_with_options(backward_args* args, step* t, isize j, isize n0, isize n1, const real* dm_rows,
                                      isize dm_row) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize n, k, at, row = unit_width(run)
    cdef double clip = cell.clip
    cdef vf i, f, g, c, c_old, dm, dc
    cdef vf[4] a, d
    cdef vf[3] peep
    cdef real* dc_at
    cdef real* dp
    peepholes(cell, j, peep)
    for n in range(n0, n1):
        at = saved_row(run, t, j, n, 4)
        for k in range(4):
            a[k] = vload(<const real*>run.gates + at + k * VLEN)
        c_old = vload(t.c + n * row + j * VLEN)
        i = vactivate(&cell.f, a[0], clip)
        f = vset(1) - i if cell.coupled else vactivate(&cell.f, a[1], clip)
        g = vactivate(&cell.g, a[2], clip)
        c = vfma(f, c_old, i * g)
        dm = take_output_gradient(args, t, j, n, dm_rows, dm_row)
        d[3] = dm * vactivate(&cell.h, c, INFINITY) * vslope(&cell.f, a[3], clip)
        dc_at = <real*>args.dc + n * row + j * VLEN
        dc = vfma(dm * vactivate(&cell.f, a[3], clip), vslope(&cell.h, c, INFINITY), vload(dc_at))
        if cell.peephole != NULL:
            dc = vfma(peep[2], d[3], dc)
        d[0] = dc * (g - c_old if cell.coupled else g) * vslope(&cell.f, a[0], clip)
        d[1] = vset(0) if cell.coupled else dc * c_old * vslope(&cell.f, a[1], clip)
        d[2] = dc * i * vslope(&cell.g, a[2], clip)
        dc = dc * f
        if cell.peephole != NULL:
            dc = vfma(peep[0], d[0], vfma(peep[1], d[1], dc))
            dp = <real*>args.dpeephole + (n * cell.units + j) * 3 * VLEN
            vstore(dp, vfma(d[0], c_old, vload(dp)))
            vstore(dp + VLEN, vfma(d[1], c_old, vload(dp + VLEN)))
            vstore(dp + 2 * VLEN, vfma(d[3], c, vload(dp + 2 * VLEN)))
        vstore(dc_at, dc)
        for k in range(4):
            vstore(<real*>args.dgates + at + k * VLEN, d[k])
