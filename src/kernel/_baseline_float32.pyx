include "kernels.pxi"
include "narrow.pxi"
