# Aligned memory, and a free list of it. Uses nothing of the other parts.

# Free list: released buffers, reused by later calls of similar size. Having the system map and clear fresh pages each
# time would cost a training step up to as much as its arithmetic. Below FREE_BYTES malloc keeps its own free list.
# Large buffers have a list of their own, which is shorter.
cdef enum: FREE_BYTES = 131072, LARGE_BYTES = 8388608, FREE_COUNT = 32, LARGE_COUNT = 8
cdef list free_blocks = [], large_free_blocks = []

# Whoever looks through the free lists has them for himself. Where there is a GIL, it sees to that.
cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    static PyMutex free_lists_mutex = {0};
    #define lock_free_lists() PyMutex_Lock(&free_lists_mutex)
    #define unlock_free_lists() PyMutex_Unlock(&free_lists_mutex)
    #else
    #define lock_free_lists() ((void)0)
    #define unlock_free_lists() ((void)0)
    #endif
    """
    void lock_free_lists()
    void unlock_free_lists()


cdef list free_list(isize size):
    return large_free_blocks if size >= LARGE_BYTES else free_blocks


# The smallest free block of this size or up to a quarter more, or None; of equal ones the one released last, which the
# caches still hold.
cdef cnp.ndarray take_free_block(isize size):
    cdef list blocks = free_list(size)
    cdef isize i, length, best = -1, least = size + size // 4 + 1
    lock_free_lists()
    try:
        for i in range(len(blocks) - 1, -1, -1):
            length = cnp.PyArray_DIM(<cnp.ndarray>blocks[i], 0)
            if size <= length < least:
                best, least = i, length
        return blocks.pop(best) if best >= 0 else None
    finally:
        unlock_free_lists()


# Adds a released block to its list, and takes the one unused for longest from a full one.
cdef int add_free_block(cnp.ndarray memory, isize size) except -1:
    cdef list blocks = free_list(size)
    lock_free_lists()
    try:
        if len(blocks) == (LARGE_COUNT if size >= LARGE_BYTES else FREE_COUNT):
            del blocks[0]
        blocks.append(memory)
    finally:
        unlock_free_lists()
    return 0


cdef int clear_free_blocks() except -1:
    lock_free_lists()
    try:
        free_blocks.clear()
        large_free_blocks.clear()
    finally:
        unlock_free_lists()
    return 0


cdef cnp.ndarray new_block(cnp.npy_intp size, bint zero):
    if zero:
        return cnp.PyArray_ZEROS(1, &size, cnp.NPY_UINT8, 0)
    return cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)


@cython.no_gc_clear
cdef class Buffer:
    """Memory of a x b elements, aligned to 64 bytes.

    Parameters
    ----------
    a, b : int
        The number of elements is a * b.
    itemsize : int
        Bytes of an element.
    zero : bool, default False
        True: the memory is zero. False: its contents are undefined.

    Raises
    ------
    MemoryError
        There is not that much memory.
    """

    cdef cnp.ndarray memory          # one dimension of bytes
    cdef void* data                  # the first aligned byte of it

    def __cinit__(self, isize a, isize b, isize itemsize, bint zero=False):
        if <double>a * <double>b * <double>itemsize > 9.0e18:
            raise MemoryError(f"a buffer of {a} x {b} elements exceeds the address space")
        cdef cnp.npy_intp size = a * b * itemsize + 64
        if size >= FREE_BYTES:
            self.memory = take_free_block(size)
        if self.memory is None:
            try:
                self.memory = new_block(size, zero)
            except MemoryError:         # the free list may hold what is missing
                clear_free_blocks()
                self.memory = new_block(size, zero)
        elif zero:
            memset(cnp.PyArray_DATA(self.memory), 0, size)
        self.data = <void*>((<uintptr_t>cnp.PyArray_DATA(self.memory) + 63) & ~<uintptr_t>63)

    def __dealloc__(self):
        cdef isize size
        # a free list is None while the interpreter shuts down
        if self.memory is None or free_blocks is None or large_free_blocks is None:
            return
        size = cnp.PyArray_DIM(self.memory, 0)
        if size >= FREE_BYTES:
            add_free_block(self.memory, size)
