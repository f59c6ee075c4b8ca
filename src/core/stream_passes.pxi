# What a stream does without the GIL: its layers one after the other, a step or a block of each; and rows of contiguous
# arrays into padded buffers and back.
#
# Uses forward_args, step_function (structs), flush_subnormals, flush_subnormals_from, restore_fp (_core).

cdef struct stream_layer:        # every pointer is owned by StreamCore.buffers
    # A step from either set: h and c read it, h_n and c_n write the other; x is the caller's, or h_n below.
    forward_args args[2]
    void* h[2]                   # [N] padded rows: the two sets
    void* c[2]
    task_function forward
    step_function small_step     # of one row and a small cell; else NULL
    # T steps in one pass: h, c and extra are of StreamCore.buffers, too; scratch and the y of all layers but the last,
    # whose y is the caller's, of StreamCore.block_buffers.
    forward_args block


# `mode` is what read_fp() gives: reading it takes 20 cycles, in which the caller can check its arguments.
cdef inline void run_small(stream_layer* layers, isize count, int current, fp_mode mode) noexcept nogil:
    cdef isize i
    flush_subnormals_from(mode)
    for i in range(count):
        layers[i].small_step(&layers[i].args[current])
    restore_fp(mode)


cdef int run_layers(stream_layer* layers, isize count, int current) noexcept nogil:
    cdef fp_mode mode = flush_subnormals()
    cdef isize i
    cdef int result = 0
    for i in range(count):
        result = layers[i].forward(&layers[i].args[current])
        if result:
            break
    restore_fp(mode)
    return result


cdef int run_blocks(stream_layer* layers, isize count) noexcept nogil:
    cdef fp_mode mode = flush_subnormals()
    cdef isize i
    cdef int result = 0
    for i in range(count):
        result = layers[i].forward(&layers[i].block)
        if result:
            break
    restore_fp(mode)
    return result


# Copies n rows of `size` bytes. Many short rows are copied without a call of memcpy for each.
cdef void copy_rows(char* out, isize out_row, const char* rows, isize row, isize size, isize n) noexcept nogil:
    cdef isize i
    if out_row == size and row == size:
        memcpy(out, rows, n * size)
        return
    for i in range(n):
        if size == 32:
            memcpy(out, rows, 32)
        elif size == 64:
            memcpy(out, rows, 64)
        elif size == 128:
            memcpy(out, rows, 128)
        else:
            memcpy(out, rows, size)
        out += out_row
        rows += row


# Whether two contiguous arrays share memory.
cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char* first = <char*>cnp.PyArray_DATA(a)
    cdef char* second = <char*>cnp.PyArray_DATA(b)
    return first < second + cnp.PyArray_NBYTES(b) and second < first + cnp.PyArray_NBYTES(a)
