# LSTM (Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000; gates in torch's order i, f, g, o):
#
#     i, f, o = sigmoid(W x + b_ih + W h + b_hh)      g = tanh(...)
#     c_t = f c_{t-1} + i g                           m_t = o tanh(c_t)        h_t = m_t, or W_hr m_t
#
# With options: peepholes (Gers & Schmidhuber 2000) add p_i c_{t-1}, p_f c_{t-1}, p_o c_t to the sums of i, f, o;
# coupled gates have f = 1 - i (Greff et al. 2017); other activations f (i, f, o), g, h (of c_t). What is kept for the
# gradient: the gates, or with options their sums.

cdef inline void lstm_cells(run* s, step* t, const vf* acc, isize p, isize Q, isize n, isize R) noexcept nogil:
    cdef isize j, q, r, row = s.c.units * VLEN
    cdef vf i_rest, f, g, o_rest, c, m
    cdef real* saved
    for q in range(Q):
        j = p + q
        for r in range(n, n + R):
            i_rest = vsigmoid_rest(acc[0])      # 1 - i
            f = vsigmoid(acc[1])
            g = vtanh(acc[2])
            o_rest = vsigmoid_rest(acc[3])      # 1 - o
            acc += 4
            c = vfma(f, vload(t.c + r * row + j * VLEN), vfma(-i_rest, g, g))
            m = vtanh(c)
            m = vfma(-o_rest, m, m)
            if s.keep:
                saved = <real*>s.gates + (j * s.rows + t.offset + r) * 4 * VLEN
                vstore(saved, vset(1) - i_rest)
                vstore(saved + VLEN, f)
                vstore(saved + 2 * VLEN, g)
                vstore(saved + 3 * VLEN, vset(1) - o_rest)
            store_cell(s, t, c, m, j, r)


cdef inline void store_cell(run* s, step* t, vf c, vf m, isize j, isize r) noexcept nogil:
    cdef isize row = s.c.units * VLEN
    vstore((t.c_next if r < t.next_active else <real*>s.c_n) + r * row + j * VLEN, c)
    if s.y_c != NULL:
        store_output(t.y_c + row_offset(s.yc_rows, r, s.yc_n), c, j, s.c.hidden)
    if s.c.w_hr.data != NULL:
        vstore(extra_row(s, t, r) + j * VLEN, m)
    else:
        store_state(s, t, m, j, r)


# The peephole weights of unit j, for i, f, o: zero where there are none.
cdef inline void peepholes(run* s, isize j, vf* p) noexcept nogil:
    cdef isize k
    for k in range(3):
        p[k] = vload(<const real*>s.c.peephole + (j * 3 + k) * VLEN) if s.c.peephole != NULL else vset(0)


cdef void lstm_cells_any(run* s, step* t, const vf* acc, isize p, isize Q, isize n, isize R) noexcept nogil:
    cdef isize j, q, r, k, row = s.c.units * VLEN
    cdef vf i, f, c
    cdef vf[4] a
    cdef vf[3] peep
    for q in range(Q):
        j = p + q
        peepholes(s, j, peep)
        for r in range(n, n + R):
            for k in range(4):
                a[k] = acc[k]
            acc += 4
            c = vload(t.c + r * row + j * VLEN)
            if s.c.peephole != NULL:        # 0 c would not do: c may be infinite
                a[0] = vfma(peep[0], c, a[0])
                a[1] = vfma(peep[1], c, a[1])
            i = vactivate(&s.c.f, a[0], s.c.clip)
            f = vset(1) - i if s.c.coupled else vactivate(&s.c.f, a[1], s.c.clip)
            c = vfma(f, c, i * vactivate(&s.c.g, a[2], s.c.clip))
            if s.c.peephole != NULL:
                a[3] = vfma(peep[2], c, a[3])
            if s.keep:
                for k in range(4):
                    vstore(<real*>s.gates + ((j * s.rows + t.offset + r) * 4 + k) * VLEN, a[k])
            store_cell(s, t, c, vactivate(&s.c.f, a[3], s.c.clip) * vactivate(&s.c.h, c, INFINITY), j, r)


# dL/dm_t of unit j: of the projection, or all that flows into h_t.
cdef inline vf take_output_gradient(run* s, step* t, isize j, isize n, const real* dm_rows,
                                    isize dm_row) noexcept nogil:
    cdef vf dm
    if s.c.w_hr.data != NULL:
        return vload(dm_rows + n * dm_row + j * VLEN)
    dm = take_state_gradient(s, t, j, n)
    vstore(state_gradient(s, n) + j * VLEN, vset(0))
    return dm


# With the sum of all that flows into m_t and c_t:
#
#     do = dm tanh(c) o (1-o)       dc += dm o (1 - tanh(c)^2)      dc_{t-1} = dc f
#     di = dc g i (1-i)             df = dc c_{t-1} f (1-f)         dg = dc i (1 - g^2)
cdef void lstm_gradients(run* s, step* t, isize j, const real* dm_rows, isize dm_row) noexcept nogil:
    cdef isize n, at, row = s.c.units * VLEN
    cdef vf one = vset(1)
    cdef vf i, f, g, o, c_old, tanh_c, dm, dc
    cdef const real* saved
    cdef real* dc_at
    cdef real* out
    for n in range(s.n0, t.active):
        at = (j * s.rows + t.offset + n) * 4 * VLEN
        saved = <const real*>s.gates + at
        out = <real*>s.dgates + at
        i = vload(saved)
        f = vload(saved + VLEN)
        g = vload(saved + 2 * VLEN)
        o = vload(saved + 3 * VLEN)
        c_old = vload(<const real*>s.c_state + (t.offset + n) * row + j * VLEN)
        tanh_c = vtanh(vfma(f, c_old, i * g))
        dm = take_output_gradient(s, t, j, n, dm_rows, dm_row)
        dc_at = <real*>s.dc + n * row + j * VLEN
        dc = vfma(dm * o, one - tanh_c * tanh_c, vload(dc_at))
        vstore(dc_at, dc * f)
        vstore(out, dc * g * i * (one - i))
        vstore(out + VLEN, dc * c_old * f * (one - f))
        vstore(out + 2 * VLEN, dc * i * (one - g * g))
        vstore(out + 3 * VLEN, dm * tanh_c * o * (one - o))


# From the sums a, with f', g', h' the slopes there:
#
#     do = dm h(c) f'(a_o)          dc += dm o h'(c) + p_o do           dp_o += do c_t
#     di = dc g f'(a_i)             df = dc c_{t-1} f'(a_f)             dp_i, dp_f += di c_{t-1}, df c_{t-1}
#     dg = dc i g'(a_g)             dc_{t-1} = dc f + p_i di + p_f df   coupled: di = dc (g - c_{t-1}) f'(a_i), df = 0
cdef void lstm_gradients_any(run* s, step* t, isize j, const real* dm_rows, isize dm_row) noexcept nogil:
    cdef isize n, k, row = s.c.units * VLEN
    cdef double clip = s.c.clip
    cdef vf i, f, g, c, c_old, dm, dc
    cdef vf[4] a, d
    cdef vf[3] peep
    cdef real* at
    cdef real* dp
    peepholes(s, j, peep)
    for n in range(s.n0, t.active):
        for k in range(4):
            a[k] = vload(<const real*>s.gates + ((j * s.rows + t.offset + n) * 4 + k) * VLEN)
        c_old = vload(<const real*>s.c_state + (t.offset + n) * row + j * VLEN)
        i = vactivate(&s.c.f, a[0], clip)
        f = vset(1) - i if s.c.coupled else vactivate(&s.c.f, a[1], clip)
        g = vactivate(&s.c.g, a[2], clip)
        c = vfma(f, c_old, i * g)
        dm = take_output_gradient(s, t, j, n, dm_rows, dm_row)
        d[3] = dm * vactivate(&s.c.h, c, INFINITY) * vslope(&s.c.f, a[3], clip)
        at = <real*>s.dc + n * row + j * VLEN
        dc = vfma(dm * vactivate(&s.c.f, a[3], clip), vslope(&s.c.h, c, INFINITY), vload(at))
        if s.c.peephole != NULL:
            dc = vfma(peep[2], d[3], dc)
        d[0] = dc * (g - c_old if s.c.coupled else g) * vslope(&s.c.f, a[0], clip)
        d[1] = vset(0) if s.c.coupled else dc * c_old * vslope(&s.c.f, a[1], clip)
        d[2] = dc * i * vslope(&s.c.g, a[2], clip)
        dc = dc * f
        if s.c.peephole != NULL:
            dc = vfma(peep[0], d[0], vfma(peep[1], d[1], dc))
            dp = <real*>s.dpeephole + (n * s.c.units + j) * 3 * VLEN
            vstore(dp, vfma(d[0], c_old, vload(dp)))
            vstore(dp + VLEN, vfma(d[1], c_old, vload(dp + VLEN)))
            vstore(dp + 2 * VLEN, vfma(d[3], c, vload(dp + 2 * VLEN)))
        vstore(at, dc)
        for k in range(4):
            vstore(<real*>s.dgates + ((j * s.rows + t.offset + n) * 4 + k) * VLEN, d[k])
