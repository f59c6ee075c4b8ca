# Streams of the layers of a chain. A step reaches one after the other; where one of them ends it by an exception, those
# before it go back to the states that they had.
#
# Uses StreamCore (streams), generation (threads).

cdef class Chain:
    """The compiled part of a Sequential's stream.

    Parameters
    ----------
    parts : list
        StreamCores, and objects of modules without a state, in order: each with ``step`` and ``run``.
    """

    cdef list steps, runs
    cdef list cores                  # of each part: itself where it has a state, else None
    cdef int busy                    # as a StreamCore's

    def __cinit__(self, list parts not None):
        self.steps = [part.step for part in parts]
        self.runs = [part.run for part in parts]
        self.cores = [part if isinstance(part, StreamCore) else None for part in parts]

    cdef inline int enter(self) except -1:
        with cython.critical_section(self):
            if self.busy == generation:
                raise RuntimeError("another thread is in a step of this stream; give each thread its own stream")
            self.busy = generation
        return 0

    cdef inline void leave(self) noexcept:
        with cython.critical_section(self):
            self.busy = 0

    def step(self, value):
        """Take a step of every part.

        Parameters
        ----------
        value : ndarray
            The first part's input.

        Returns
        -------
        ndarray
            The last part's output.

        Raises
        ------
        RuntimeError
            Another thread is in a step of this stream.
        """
        cdef isize i = 0, k
        cdef StreamCore core
        self.enter()
        try:
            for i in range(len(self.steps)):
                value = self.steps[i](value)
            return value
        except BaseException:
            for k in range(i):          # the old state still lies in a stream's other set of buffers
                core = self.cores[k]
                if core is not None:
                    with cython.critical_section(core):
                        core.current = 1 - core.current
            raise
        finally:
            self.leave()

    def run(self, value):
        """Run a block of steps through every part, one after the other.

        Parameters
        ----------
        value : ndarray
            The first part's input.

        Returns
        -------
        ndarray
            The last part's output.

        Raises
        ------
        RuntimeError
            Another thread is in a step of this stream.
        """
        cdef isize i = 0, k
        cdef StreamCore core
        cdef list before = []
        self.enter()
        try:
            for core in self.cores:
                before.append(None if core is None else core._get_state())
            for i in range(len(self.runs)):
                value = self.runs[i](value)
            return value
        except BaseException:
            for k in range(min(i + 1, <isize>len(before))):
                core = self.cores[k]
                if core is not None:
                    core._set_state(before[k][0], before[k][1])
            raise
        finally:
            self.leave()

    def set_states(self, list states not None):
        """Set the states of all layers.

        Parameters
        ----------
        states : list of (ndarray [L, N, S], ndarray [L, N, H] or None)
            Contiguous, of each layer's dtype; one for each layer.
        """
        cdef StreamCore core
        cdef list cores = [core for core in self.cores if core is not None]
        if len(states) != len(cores):
            raise ValueError(f"states: expected {len(cores)}, got {len(states)}")
        self.enter()
        try:
            for core, (h, c) in zip(cores, states):
                core._set_state(h, c)
        finally:
            self.leave()

    def clear(self, list rows not None):
        """Zero the states of the rows with these indices."""
        cdef StreamCore core
        self.enter()
        try:
            for core in self.cores:
                if core is not None:
                    core._clear(rows)
        finally:
            self.leave()
