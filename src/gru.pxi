# GRU (Cho et al. 2014), gates in torch's order r, z, n:
#
#     r, z = sigmoid(W x + b_ih + W h + b_hh)         h_t = (1-z) n + z h_{t-1} = n + z (h_{t-1} - n)
#     n = tanh(W x + b_in + r (W_hn h + b_hn))        GRU: reset after the product (torch, ONNX linear_before_reset)
#     n = tanh(W x + b_in + b_hn + W_hn (r h))        GRU_BEFORE: the paper's form
#
# With options: other activations f (r, z) and g (n); mirrored, h_t = z n + (1-z) h_{t-1}. What is kept for the
# gradient: the gates, or with options their sums. `plain` is a constant wherever these are inlined.

cdef inline vf gate(run* s, vf a, const bint plain) noexcept nogil:
    return vsigmoid(a) if plain else vactivate(&s.c.f, a, s.c.clip)


cdef inline vf candidate(run* s, vf a, const bint plain) noexcept nogil:
    return vtanh(a) if plain else vactivate(&s.c.g, a, s.c.clip)


cdef inline vf updated(run* s, vf z, vf n, vf h, const bint plain) noexcept nogil:
    return vfma(z, n - h, h) if not plain and s.c.mirror else vfma(z, h - n, n)


# A gate as it was, and its slope: y (1 - y), 1 - y^2, or from the sum that was kept.
cdef inline vf kept_gate(run* s, vf kept, const bint plain) noexcept nogil:
    return kept if plain else vactivate(&s.c.f, kept, s.c.clip)


cdef inline vf gate_slope(run* s, vf kept, const bint plain) noexcept nogil:
    return kept * (vset(1) - kept) if plain else vslope(&s.c.f, kept, s.c.clip)


cdef inline vf kept_candidate(run* s, vf kept, const bint plain) noexcept nogil:
    return kept if plain else vactivate(&s.c.g, kept, s.c.clip)


cdef inline vf candidate_slope(run* s, vf kept, const bint plain) noexcept nogil:
    return vset(1) - kept * kept if plain else vslope(&s.c.g, kept, s.c.clip)


# acc: r, z, W_hn h + b_hn.  n_input: W x + b_in.
cdef inline void gru_cells(run* s, step* t, const vf* acc, const vf* n_input, isize p, isize Q,
                           isize first, isize R, const bint plain) noexcept nogil:
    cdef isize j, q, row, i = 0, width = s.c.state_units * VLEN
    cdef vf r, z, n, a, h
    cdef real* saved
    for q in range(Q):
        j = p + q
        for row in range(first, first + R):
            r = gate(s, acc[0], plain)
            z = gate(s, acc[1], plain)
            a = vfma(r, acc[2], n_input[i])
            n = candidate(s, a, plain)
            h = updated(s, z, n, vload(t.h + row * width + j * VLEN), plain)
            if s.keep:
                saved = <real*>s.gates + (j * s.rows + t.offset + row) * 4 * VLEN
                vstore(saved, r if plain else acc[0])
                vstore(saved + VLEN, z if plain else acc[1])
                vstore(saved + 2 * VLEN, n if plain else a)
                vstore(saved + 3 * VLEN, acc[2])
            store_state(s, t, h, j, row)
            acc += 3
            i += 1


# dL/dn, dL/dz from dL/dh_t, and what goes on to h_{t-1}:
#
#     dn = dh (1-z)       dz = dh (h_{t-1} - n)       dh z              mirrored: 1-z for z, the signs turned
cdef inline void update_gradients(run* s, step* t, isize j, isize row, vf z, vf n, vf* dn, vf* dz,
                                  const bint plain) noexcept nogil:
    cdef vf dh = take_state_gradient(s, t, j, row), h = vload(t.h + row * s.c.state_units * VLEN + j * VLEN)
    dz[0] = dh * (h - n)
    if not plain and s.c.mirror:
        z = vset(1) - z
        dz[0] = -dz[0]
    dn[0] = dh * (vset(1) - z)
    vstore(state_gradient(s, row) + j * VLEN, dh * z)


#     da_n = dn g'      da_z = dz f'      da_r = da_n (W_hn h + b_hn) f'      d(W_hn h) = da_n r
#
# kept as d(W_hn h), dr, dz, dn: the recurrent product takes the first three, the input's the last three.
cdef inline void gru_gradients(run* s, step* t, isize j, const bint plain) noexcept nogil:
    cdef isize row, at
    cdef vf r, z, n, dn, dz
    cdef const real* saved
    cdef real* out
    for row in range(s.n0, t.active):
        at = (j * s.rows + t.offset + row) * 4 * VLEN
        saved = <const real*>s.gates + at
        out = <real*>s.dgates + at
        r = vload(saved)
        z = vload(saved + VLEN)
        n = vload(saved + 2 * VLEN)
        update_gradients(s, t, j, row, kept_gate(s, z, plain), kept_candidate(s, n, plain), &dn, &dz, plain)
        dn = dn * candidate_slope(s, n, plain)
        vstore(out, dn * kept_gate(s, r, plain))
        vstore(out + VLEN, dn * vload(saved + 3 * VLEN) * gate_slope(s, r, plain))
        vstore(out + 2 * VLEN, dz * gate_slope(s, z, plain))
        vstore(out + 3 * VLEN, dn)


# GRU_BEFORE goes through the units twice: r and z of every unit first, then n, which needs all of r h.
# Between the two `scratch` holds z and W x + b of n, two vectors a unit and row; r h is extra_row.
cdef inline void gru_before_gates(run* s, step* t, const vf* acc, real* between, isize j, isize first,
                                  isize R, const bint plain) noexcept nogil:
    cdef isize row, width = s.c.state_units * VLEN
    cdef vf r, z
    cdef real* saved
    for row in range(first, first + R):
        r = gate(s, acc[0], plain)
        z = gate(s, acc[1], plain)
        vstore(extra_row(s, t, row) + j * VLEN, r * vload(t.h + row * width + j * VLEN))
        vstore(between + ((row - s.n0) * s.c.units + j) * 2 * VLEN, z)
        vstore(between + ((row - s.n0) * s.c.units + j) * 2 * VLEN + VLEN, acc[2])
        if s.keep:
            saved = <real*>s.gates + (j * s.rows + t.offset + row) * 3 * VLEN
            vstore(saved, r if plain else acc[0])
            vstore(saved + VLEN, z if plain else acc[1])
        acc += 3


cdef inline void gru_before_cells(run* s, step* t, const vf* acc, const real* between, isize j, isize first,
                                  isize R, const bint plain) noexcept nogil:
    cdef isize row, width = s.c.state_units * VLEN
    cdef vf z, n
    for row in range(first, first + R):
        z = vload(between + ((row - s.n0) * s.c.units + j) * 2 * VLEN)
        n = candidate(s, acc[row - first], plain)
        if s.keep:
            vstore(<real*>s.gates + ((j * s.rows + t.offset + row) * 3 + 2) * VLEN, n if plain else acc[row - first])
        store_state(s, t, updated(s, z, n, vload(t.h + row * width + j * VLEN), plain), j, row)


cdef void gru_before_cells_any(run* s, step* t, const vf* acc, const real* between, isize j, isize first,
                               isize R) noexcept nogil:
    gru_before_cells(s, t, acc, between, j, first, R, False)


#     dn, dz as above; then, with d(r h) = W_hn' dn:     dr = d(r h) h f'       dh_{t-1} = dh z + d(r h) r + ...
cdef inline void gru_before_gradients(run* s, step* t, isize j, const bint plain) noexcept nogil:
    cdef isize row, at
    cdef vf z, n, dn, dz
    for row in range(s.n0, t.active):
        at = (j * s.rows + t.offset + row) * 3 * VLEN
        z = vload(<const real*>s.gates + at + VLEN)
        n = vload(<const real*>s.gates + at + 2 * VLEN)
        update_gradients(s, t, j, row, kept_gate(s, z, plain), kept_candidate(s, n, plain), &dn, &dz, plain)
        vstore(<real*>s.dgates + at + VLEN, dz * gate_slope(s, z, plain))
        vstore(<real*>s.dgates + at + 2 * VLEN, dn * candidate_slope(s, n, plain))


cdef inline void gru_before_reset_gradients(run* s, step* t, isize j, const real* drh_rows, isize drh_row,
                                            const bint plain) noexcept nogil:
    cdef isize row, at, width = s.c.state_units * VLEN
    cdef vf r, drh
    cdef real* dh_at
    for row in range(s.n0, t.active):
        at = (j * s.rows + t.offset + row) * 3 * VLEN
        r = vload(<const real*>s.gates + at)
        drh = vload(drh_rows + row * drh_row + j * VLEN)
        dh_at = state_gradient(s, row) + j * VLEN
        vstore(dh_at, vfma(drh, kept_gate(s, r, plain), vload(dh_at)))
        vstore(<real*>s.dgates + at, drh * vload(t.h + row * width + j * VLEN) * gate_slope(s, r, plain))
