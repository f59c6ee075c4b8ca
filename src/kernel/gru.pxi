# GRU (Cho et al. 2014), gates in torch's order r, z, n:
#
#     r, z = sigmoid(W x + b_ih + W h + b_hh)         h_t = (1-z) n + z h_{t-1} = n + z (h_{t-1} - n)
#     n = tanh(W x + b_in + r (W_hn h + b_hn))        GRU: reset after the product (torch, ONNX linear_before_reset)
#     n = tanh(W x + b_in + b_hn + W_hn (r h))        GRU_BEFORE: reset before it, the paper's form
#
# With options: other activations f (r, z) and g (n); mirrored, h_t = z n + (1-z) h_{t-1}. Forward saves the gates for
# the gradient, or with options their sums. `plain` is a constant wherever these are inlined.
#
# Uses packed_cell, forward_args, backward_args (structs), step, saved_row, state_width, extra_row, store_state
# (forward), take_state_gradient, state_gradient (backward), vactivate, vslope (declarations).

cdef inline vf gate(const packed_cell* cell, vf a, const bint plain) noexcept nogil:
    return vsigmoid(a) if plain else vactivate(&cell.f, a, cell.clip)


cdef inline vf candidate(const packed_cell* cell, vf a, const bint plain) noexcept nogil:
    return vtanh(a) if plain else vactivate(&cell.g, a, cell.clip)


cdef inline vf new_state(const packed_cell* cell, vf z, vf n, vf h, const bint plain) noexcept nogil:
    return vfma(z, n - h, h) if not plain and cell.mirror else vfma(z, h - n, n)


# A gate from what forward saved, and its slope there: plain, the gate y is saved, and its slope is y (1 - y) or, of the
# candidate, 1 - y^2; with options, the sum is saved.
cdef inline vf saved_gate(const packed_cell* cell, vf saved, const bint plain) noexcept nogil:
    return saved if plain else vactivate(&cell.f, saved, cell.clip)


cdef inline vf gate_slope(const packed_cell* cell, vf saved, const bint plain) noexcept nogil:
    return saved * (vset(1) - saved) if plain else vslope(&cell.f, saved, cell.clip)


cdef inline vf saved_candidate(const packed_cell* cell, vf saved, const bint plain) noexcept nogil:
    return saved if plain else vactivate(&cell.g, saved, cell.clip)


cdef inline vf candidate_slope(const packed_cell* cell, vf saved, const bint plain) noexcept nogil:
    return vset(1) - saved * saved if plain else vslope(&cell.g, saved, cell.clip)


# acc: r, z, W_hn h + b_hn.  n_input: W x + b_in.
cdef inline void gru_cells(forward_args* args, step* t, const vf* acc, const vf* n_input, isize p, isize Q,
                           isize first, isize R, const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize j, q, row, i = 0, width = state_width(run)
    cdef vf r, z, n, a, h
    cdef real* saved
    for q in range(Q):
        j = p + q
        for row in range(first, first + R):
            r = gate(cell, acc[0], plain)
            z = gate(cell, acc[1], plain)
            a = vfma(r, acc[2], n_input[i])
            n = candidate(cell, a, plain)
            h = new_state(cell, z, n, vload(t.h + row * width + j * VLEN), plain)
            if run.keep:
                saved = <real*>run.gates + saved_row(run, t, j, row, 4)
                vstore(saved, r if plain else acc[0])
                vstore(saved + VLEN, z if plain else acc[1])
                vstore(saved + 2 * VLEN, n if plain else a)
                vstore(saved + 3 * VLEN, acc[2])
            store_state(args, t, h, j, row)
            acc += 3
            i += 1


# dL/dn and dL/dz from dL/dh_t, and the part of dL/dh_{t-1} that passes through h_t directly:
#
#     dn = dh (1-z)       dz = dh (h_{t-1} - n)       dh z              mirrored: 1-z for z, and dz changes its sign
cdef inline void update_gradients(backward_args* args, step* t, isize j, isize row, vf z, vf n, vf* dn, vf* dz,
                                  const bint plain) noexcept nogil:
    cdef vf dh = take_state_gradient(args, t, j, row)
    cdef vf h = vload(t.h + row * state_width(&args.run) + j * VLEN)
    dz[0] = dh * (h - n)
    if not plain and args.run.cell.mirror:
        z = vset(1) - z
        dz[0] = -dz[0]
    dn[0] = dh * (vset(1) - z)
    vstore(state_gradient(args, row) + j * VLEN, dh * z)


#     da_n = dn g'      da_z = dz f'      da_r = da_n (W_hn h + b_hn) f'      d(W_hn h) = da_n r
#
# stored as d(W_hn h), dr, dz, dn: the recurrent product takes the first three, the input's the last three.
cdef inline void gru_gradients(backward_args* args, step* t, isize j, isize n0, isize n1,
                               const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize row, at
    cdef vf r, z, n, dn, dz
    cdef const real* saved
    cdef real* out
    for row in range(n0, n1):
        at = saved_row(run, t, j, row, 4)
        saved = <const real*>run.gates + at
        out = <real*>args.dgates + at
        r = vload(saved)
        z = vload(saved + VLEN)
        n = vload(saved + 2 * VLEN)
        update_gradients(args, t, j, row, saved_gate(cell, z, plain), saved_candidate(cell, n, plain), &dn, &dz, plain)
        dn = dn * candidate_slope(cell, n, plain)
        vstore(out, dn * saved_gate(cell, r, plain))
        vstore(out + VLEN, dn * vload(saved + 3 * VLEN) * gate_slope(cell, r, plain))
        vstore(out + 2 * VLEN, dz * gate_slope(cell, z, plain))
        vstore(out + 3 * VLEN, dn)


# GRU_BEFORE goes through the units twice: r and z of every unit first, then n, which needs all of r h. From the first
# half to the second `between`, the scratch of the task, holds z and W x + b of n, two vectors a unit and row; r h is in
# extra_row.
cdef inline isize between_index(const layer_run* run, isize j, isize row) noexcept nogil:
    return ((row - run.n0) * run.cell.units + j) * 2 * VLEN


cdef inline const real* between_row(const layer_run* run, const real* between, isize j, isize row) noexcept nogil:
    return between + between_index(run, j, row)


cdef inline void gru_before_gates(forward_args* args, step* t, const vf* acc, real* between, isize j, isize first,
                                  isize R, const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef isize row, at, width = state_width(run)
    cdef vf r, z
    cdef real* saved
    for row in range(first, first + R):
        r = gate(run.cell, acc[0], plain)
        z = gate(run.cell, acc[1], plain)
        vstore(extra_row(run, t, row) + j * VLEN, r * vload(t.h + row * width + j * VLEN))
        at = between_index(run, j, row)
        vstore(between + at, z)
        vstore(between + at + VLEN, acc[2])
        if run.keep:
            saved = <real*>run.gates + saved_row(run, t, j, row, 3)
            vstore(saved, r if plain else acc[0])
            vstore(saved + VLEN, z if plain else acc[1])
        acc += 3


cdef inline void gru_before_cells(forward_args* args, step* t, const vf* acc, const real* between, isize j,
                                  isize first, isize R, const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize row, width = state_width(run)
    cdef vf z, n, a
    for row in range(first, first + R):
        a = acc[row - first]
        z = vload(between_row(run, between, j, row))
        n = candidate(cell, a, plain)
        if run.keep:
            vstore(<real*>run.gates + saved_row(run, t, j, row, 3) + 2 * VLEN, n if plain else a)
        store_state(args, t, new_state(cell, z, n, vload(t.h + row * width + j * VLEN), plain), j, row)


cdef void gru_before_cells_with_options(forward_args* args, step* t, const vf* acc, const real* between, isize j,
                                        isize first, isize R) noexcept nogil:
    gru_before_cells(args, t, acc, between, j, first, R, False)


#     dn, dz as above; then, with d(r h) = W_hn' dn:     dr = d(r h) h f'       dh_{t-1} = dh z + d(r h) r + ...
cdef inline void gru_before_gradients(backward_args* args, step* t, isize j, isize n0, isize n1,
                                      const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize row, at
    cdef vf z, n, dn, dz
    for row in range(n0, n1):
        at = saved_row(run, t, j, row, 3)
        z = vload(<const real*>run.gates + at + VLEN)
        n = vload(<const real*>run.gates + at + 2 * VLEN)
        update_gradients(args, t, j, row, saved_gate(cell, z, plain), saved_candidate(cell, n, plain), &dn, &dz, plain)
        vstore(<real*>args.dgates + at + VLEN, dz * gate_slope(cell, z, plain))
        vstore(<real*>args.dgates + at + 2 * VLEN, dn * candidate_slope(cell, n, plain))


cdef inline void gru_before_reset_gradients(backward_args* args, step* t, isize j, const real* drh_rows,
                                            isize drh_row, const bint plain) noexcept nogil:
    cdef layer_run* run = &args.run
    cdef const packed_cell* cell = run.cell
    cdef isize row, at, width = state_width(run)
    cdef vf r, drh
    cdef real* dh
    for row in range(run.n0, t.active):
        at = saved_row(run, t, j, row, 3)
        r = vload(<const real*>run.gates + at)
        drh = vload(drh_rows + row * drh_row + j * VLEN)
        dh = state_gradient(args, row) + j * VLEN
        vstore(dh, vfma(drh, saved_gate(cell, r, plain), vload(dh)))
        vstore(<real*>args.dgates + at, drh * vload(t.h + row * width + j * VLEN) * gate_slope(cell, r, plain))
