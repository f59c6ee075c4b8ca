# GRU (Cho et al. 2014), gates in torch's order r, z, n:
#
#     r, z = sigmoid(W x + b_ih + W h + b_hh)         h_t = (1-z) n + z h_{t-1} = n + z (h_{t-1} - n)
#     n = tanh(W x + b_in + r (W_hn h + b_hn))        GRU: reset after the product (torch, ONNX linear_before_reset)
#     n = tanh(W x + b_in + b_hn + W_hn (r h))        GRU_BEFORE: the paper's form

# acc: r, z, W_hn h + b_hn.  n_input: W x + b_in.
cdef inline void gru_cells(run* s, step* t, const vf* acc, const vf* n_input, isize p, isize Q,
                           isize first, isize R) noexcept nogil:
    cdef isize j, q, row, i = 0, width = s.c.state_units * VLEN
    cdef vf r, z, n, h
    cdef real* saved
    for q in range(Q):
        j = p + q
        for row in range(first, first + R):
            r = vsigmoid(acc[0])
            z = vsigmoid(acc[1])
            n = vtanh(vfma(r, acc[2], n_input[i]))
            h = vload(t.h + row * width + j * VLEN)
            h = vfma(z, h - n, n)
            if s.keep:
                saved = <real*>s.gates + (j * s.rows + t.offset + row) * 4 * VLEN
                vstore(saved, r)
                vstore(saved + VLEN, z)
                vstore(saved + 2 * VLEN, n)
                vstore(saved + 3 * VLEN, acc[2])
            store_state(s, t, h, j, row)
            acc += 3
            i += 1


#     dn = dh (1-z) (1 - n^2)       dz = dh (h_{t-1} - n) z (1-z)       dh_{t-1} = dh z + ...
#     d(W_hn h) = dn r              dr = dn (W_hn h + b_hn) r (1-r)
#
# kept as d(W_hn h), dr, dz, dn: the recurrent product takes the first three, the input's the last three.
cdef void gru_gradients(run* s, step* t, isize j) noexcept nogil:
    cdef isize row, at, width = s.c.state_units * VLEN
    cdef vf one = vset(1)
    cdef vf r, z, n, dh, dn
    cdef const real* saved
    cdef real* out
    for row in range(s.n0, t.active):
        at = (j * s.rows + t.offset + row) * 4 * VLEN
        saved = <const real*>s.gates + at
        out = <real*>s.dgates + at
        r = vload(saved)
        z = vload(saved + VLEN)
        n = vload(saved + 2 * VLEN)
        dh = take_state_gradient(s, t, j, row)
        dn = dh * (one - z) * (one - n * n)
        vstore(state_gradient(s, row) + j * VLEN, dh * z)
        vstore(out, dn * r)
        vstore(out + VLEN, dn * vload(saved + 3 * VLEN) * r * (one - r))
        vstore(out + 2 * VLEN, dh * (vload(t.h + row * width + j * VLEN) - n) * z * (one - z))
        vstore(out + 3 * VLEN, dn)


# GRU_BEFORE goes through the units twice: r and z of every unit first, then n, which needs all of r h.
# Between the two `scratch` holds z and W x + b of n, two vectors a unit and row; r h is extra_row.
cdef inline void gru_before_gates(run* s, step* t, const vf* acc, real* between, isize j, isize first,
                                  isize R) noexcept nogil:
    cdef isize row, width = s.c.state_units * VLEN
    cdef vf r, z
    cdef real* saved
    for row in range(first, first + R):
        r = vsigmoid(acc[0])
        z = vsigmoid(acc[1])
        vstore(extra_row(s, t, row) + j * VLEN, r * vload(t.h + row * width + j * VLEN))
        vstore(between + ((row - s.n0) * s.c.units + j) * 2 * VLEN, z)
        vstore(between + ((row - s.n0) * s.c.units + j) * 2 * VLEN + VLEN, acc[2])
        if s.keep:
            saved = <real*>s.gates + (j * s.rows + t.offset + row) * 3 * VLEN
            vstore(saved, r)
            vstore(saved + VLEN, z)
        acc += 3


cdef inline void gru_before_cells(run* s, step* t, const vf* acc, const real* between, isize j, isize first,
                                  isize R) noexcept nogil:
    cdef isize row, width = s.c.state_units * VLEN
    cdef vf z, n, h
    for row in range(first, first + R):
        z = vload(between + ((row - s.n0) * s.c.units + j) * 2 * VLEN)
        n = vtanh(acc[row - first])
        h = vload(t.h + row * width + j * VLEN)
        if s.keep:
            vstore(<real*>s.gates + ((j * s.rows + t.offset + row) * 3 + 2) * VLEN, n)
        store_state(s, t, vfma(z, h - n, n), j, row)


#     dn, dz as above; then, with d(r h) = W_hn' dn:     dr = d(r h) h r (1-r)        dh_{t-1} = dh z + d(r h) r + ...
cdef void gru_before_gradients(run* s, step* t, isize j) noexcept nogil:
    cdef isize row, at, width = s.c.state_units * VLEN
    cdef vf one = vset(1)
    cdef vf z, n, dh
    cdef real* out
    for row in range(s.n0, t.active):
        at = (j * s.rows + t.offset + row) * 3 * VLEN
        z = vload(<const real*>s.gates + at + VLEN)
        n = vload(<const real*>s.gates + at + 2 * VLEN)
        out = <real*>s.dgates + at
        dh = take_state_gradient(s, t, j, row)
        vstore(state_gradient(s, row) + j * VLEN, dh * z)
        vstore(out + VLEN, dh * (vload(t.h + row * width + j * VLEN) - n) * z * (one - z))
        vstore(out + 2 * VLEN, dh * (one - z) * (one - n * n))


cdef void gru_before_reset_gradients(run* s, step* t, isize j, const real* drh_rows, isize drh_row) noexcept nogil:
    cdef isize row, at, width = s.c.state_units * VLEN
    cdef vf r, drh
    cdef real* dh_at
    for row in range(s.n0, t.active):
        at = (j * s.rows + t.offset + row) * 3 * VLEN
        r = vload(<const real*>s.gates + at)
        drh = vload(drh_rows + row * drh_row + j * VLEN)
        dh_at = state_gradient(s, row) + j * VLEN
        vstore(dh_at, vfma(drh, r, vload(dh_at)))
        vstore(<real*>s.dgates + at, drh * vload(t.h + row * width + j * VLEN) * r * (vset(1) - r))
