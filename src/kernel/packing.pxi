# Parameters to and from the layouts of the tile. A "vector" of outputs is VLEN hidden units of one gate; vectors
# stand in the order [unit][gate], so that a unit's gates meet in one panel. Lanes and units past H are zero.
#
# Uses real, VLEN, vload, vstore, transpose_block (declarations), isize (structs).

# Units u0..u1.
cdef void pack(void* out, const void* w, isize row, isize column, isize size, isize u0, isize u1,
               const int* gate, isize gates, isize width, isize depth) noexcept nogil:
    cdef isize vector, unit, k, l, lanes
    cdef const real* source
    cdef real* target
    for vector in range(u0 * gates, u1 * gates):
        unit = vector // gates
        lanes = max(<isize>0, min(<isize>VLEN, size - unit * VLEN))
        source = <const real*>w + (gate[vector % gates] * size + unit * VLEN) * row
        target = <real*>out + ((vector // width) * depth * width + vector % width) * VLEN
        k = 0
        while lanes == VLEN and column == 1 and k + VLEN <= depth:
            transpose_block(target, width * VLEN, source + k, row, VLEN)
            target += VLEN * width * VLEN
            k += VLEN
        while k < depth:
            for l in range(lanes):
                target[l] = source[l * row + k * column]
            for l in range(lanes, VLEN):
                target[l] = 0
            target += width * VLEN
            k += 1


# Of units u0..u1: w[row of the lane][k] = packed[k][lane]. Rows of w are `depth` long.
cdef void unpack(void* w, const void* packed, isize size, isize u0, isize u1, const int* gate, isize gates,
                 isize width, isize depth) noexcept nogil:
    cdef isize vector, unit, k, l, lanes
    cdef real* target
    cdef const real* source
    for vector in range(u0 * gates, u1 * gates):
        unit = vector // gates
        lanes = min(<isize>VLEN, size - unit * VLEN)
        source = <const real*>packed + ((vector // width) * depth * width + vector % width) * VLEN
        target = <real*>w + (gate[vector % gates] * size + unit * VLEN) * depth
        k = 0
        while k + VLEN <= depth:
            transpose_block(target + k, depth, source + k * width * VLEN, width * VLEN, lanes)
            k += VLEN
        while k < depth:
            for l in range(lanes):
                target[l * depth + k] = source[k * width * VLEN + l]
            k += 1


# The transpose: outputs are the columns of w; the summed index runs over [unit][gate][lane], here of units u0..u1.
cdef void pack_t(void* out, const void* w, isize row, isize column, isize size, isize units, isize u0, isize u1,
                 const int* gate, isize gates, isize panels, isize width, isize columns) noexcept nogil:
    cdef isize depth = units * gates * VLEN
    cdef isize k, unit, within, vector, l, lanes
    cdef const real* source
    cdef real* target
    for k in range(u0 * gates * VLEN, u1 * gates * VLEN):
        unit = k // (gates * VLEN)
        within = unit * VLEN + k % VLEN
        source = <const real*>w + (gate[(k // VLEN) % gates] * size + within) * row
        for vector in range(panels * width):
            target = <real*>out + (((vector // width) * depth + k) * width + vector % width) * VLEN
            lanes = max(<isize>0, min(<isize>VLEN, columns - vector * VLEN)) if within < size else 0
            if lanes == VLEN and column == 1:
                vstore(target, vload(source + vector * VLEN))
                continue
            for l in range(lanes):
                target[l] = source[(vector * VLEN + l) * column]
            for l in range(lanes, VLEN):
                target[l] = 0
