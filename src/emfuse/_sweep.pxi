# The fused pass, written once. Each `_sweep_<isa>.pyx` includes it and is compiled for its own instruction set.
#
# One walk over the rows, block by block: log densities (1-3), their normalisation (4, 5), the sums of the M step (6).
# The equations are in reference.py; the steps inside a block are in _block.h. Nothing of size rows x components exists.
# The functions below hold no lock and no GIL while they run, and keep nothing between calls.

cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memset

cnp.import_array()

cdef extern from "_block.h" nogil:
    const double LOG2_E
    const double LN_2
    const ptrdiff_t W
    int few(ptrdiff_t D, int full)
    ptrdiff_t sums_of_few(ptrdiff_t D)
    cdef cppclass Scratch:
        double* x
        double* l
        double* top
        double* total
        double* weight
        double* share
        double* residual
        double* moved
        double* weighted
        double* P
        double* c
        double* partial
        void* memory
    ptrdiff_t rows_per_block(ptrdiff_t N, ptrdiff_t D, ptrdiff_t K)
    ptrdiff_t packed_size(ptrdiff_t D, int full)
    int allocate(Scratch* s, ptrdiff_t B, ptrdiff_t D, ptrdiff_t K, int full)
    void pack_full(const double* P, ptrdiff_t D, double* packed)
    void pack_diag(const double* P, ptrdiff_t D, double* packed)
    void load_block[T](const T* X, ptrdiff_t row_step, ptrdiff_t column_step, ptrdiff_t rows, ptrdiff_t D, ptrdiff_t B, double* x)
    void load_weights(const double* v, ptrdiff_t rows, ptrdiff_t B, double* weight)
    void log_density_few(const double* x, ptrdiff_t B, ptrdiff_t D, const double* mu, const double* P, double c, double* l)
    void log_density_diag(const double* x, ptrdiff_t B, ptrdiff_t D, const double* mu, const double* P, double c, double* l)
    void log_density_full(const double* x, ptrdiff_t B, ptrdiff_t D, const double* mu, const double* P, double c, double* residual, double* l)
    void normalise(double* l, ptrdiff_t K, ptrdiff_t B, double* top, double* total)
    void harden(double* l, ptrdiff_t K, ptrdiff_t B, double* top, double* total)
    double share_rows(const double* weight, int all_one, ptrdiff_t B, const double* top, const double* total, double* share)
    void accumulate_few(const double* x, const double* e, const double* share, ptrdiff_t B, ptrdiff_t D, const double* origin, double* partial)
    void finish_few(const double* partial, ptrdiff_t D, double* mass, double* first, double* second)
    double take_shares(double* e, const double* share, ptrdiff_t B)
    void accumulate_diag(const double* x, const double* r, ptrdiff_t B, ptrdiff_t D, const double* origin, double* first, double* second)
    void accumulate_full(const double* x, const double* r, ptrdiff_t B, ptrdiff_t D, const double* origin,
                         double* moved, double* weighted, double* first, double* second)
    void log_densities(const double* top, const double* total, ptrdiff_t rows, double* out)
    void most_likely(const double* l, ptrdiff_t K, ptrdiff_t B, ptrdiff_t rows, int64_t* out)
    void posteriors(const double* l, const double* total, ptrdiff_t K, ptrdiff_t B, ptrdiff_t rows, double* out)


cdef struct Data:
    const char* start        # the first element of X
    bint single              # float32, or float64
    ptrdiff_t N
    ptrdiff_t D
    ptrdiff_t row_step       # in elements
    ptrdiff_t column_step


cdef struct Mixture:
    ptrdiff_t K
    bint full                # P is a triangle for each component, or a vector
    const double* mu
    const double* P
    const double* c


cdef int describe(cnp.ndarray X, Data* data) except -1:
    cdef int kind = cnp.PyArray_TYPE(X)
    cdef ptrdiff_t size = cnp.PyArray_ITEMSIZE(X)
    if cnp.PyArray_NDIM(X) != 2 or kind not in (cnp.NPY_DOUBLE, cnp.NPY_FLOAT) or not cnp.PyArray_ISBEHAVED_RO(X):
        raise TypeError(f"X must be a 2-D, aligned, native float32 or float64 array, got {X.ndim}-D {X.dtype}")
    if cnp.PyArray_STRIDE(X, 0) % size or cnp.PyArray_STRIDE(X, 1) % size:
        raise TypeError("X must have strides that are whole elements")
    data.start = <const char*>cnp.PyArray_DATA(X)
    data.single = kind == cnp.NPY_FLOAT
    data.N = cnp.PyArray_DIM(X, 0)
    data.D = cnp.PyArray_DIM(X, 1)
    data.row_step = cnp.PyArray_STRIDE(X, 0) // size
    data.column_step = cnp.PyArray_STRIDE(X, 1) // size
    return 0


cdef double* doubles(cnp.ndarray array, ptrdiff_t size, str name, bint written=False) except NULL:
    """The data of a C-ordered, native float64 array of `size` elements; one that is `written` to must let itself be."""
    if (cnp.PyArray_TYPE(array) != cnp.NPY_DOUBLE or not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_SIZE(array) != size
            or (written and not cnp.PyArray_ISWRITEABLE(array))):
        raise TypeError(f"{name} must be a C-ordered{', writable' if written else ''}, native float64 array of {size} elements, "
                        f"got shape {(<object>array).shape}, {array.dtype}, {'writable' if array.flags.writeable else 'read-only'}")
    return <double*>cnp.PyArray_DATA(array)


cdef int describe_mixture(cnp.ndarray means, cnp.ndarray P, cnp.ndarray log_constant, ptrdiff_t D, Mixture* mixture) except -1:
    if cnp.PyArray_NDIM(means) != 2 or cnp.PyArray_NDIM(P) not in (2, 3):
        raise TypeError(f"means must be 2-D and P 2-D or 3-D, got {means.ndim}-D and {P.ndim}-D")
    cdef ptrdiff_t K = cnp.PyArray_DIM(means, 0)
    mixture.K = K
    mixture.full = cnp.PyArray_NDIM(P) == 3
    mixture.mu = doubles(means, K * D, "means")
    mixture.P = doubles(P, K * D * D if mixture.full else K * D, "P")
    mixture.c = doubles(log_constant, K, "log_constant")
    return 0


cdef inline void prepare(const Mixture* mixture, ptrdiff_t D, Scratch* s) noexcept nogil:
    """P and c in the units and the order that the E step wants."""
    cdef ptrdiff_t k, size = packed_size(D, mixture.full)
    for k in range(mixture.K):
        s.c[k] = LOG2_E * mixture.c[k]
        if mixture.full:
            pack_full(mixture.P + k * D * D, D, s.P + k * size)
        else:
            pack_diag(mixture.P + k * D, D, s.P + k * size)


cdef inline void log_density_of_block(const Data* data, const Mixture* mixture, ptrdiff_t start, ptrdiff_t rows, ptrdiff_t B,
                                      Scratch* s) noexcept nogil:
    """Rows start .. start + rows of X on their side, and their log2 density under each component: equations 1-3."""
    cdef ptrdiff_t D = data.D, k, size = packed_size(D, mixture.full)
    cdef ptrdiff_t offset = start * data.row_step
    if data.single:
        load_block[float](<const float*>data.start + offset, data.row_step, data.column_step, rows, D, B, s.x)
    else:
        load_block[double](<const double*>data.start + offset, data.row_step, data.column_step, rows, D, B, s.x)
    for k in range(mixture.K):
        if few(D, mixture.full):
            log_density_few(s.x, B, D, mixture.mu + k * D, s.P + k * size, s.c[k], s.l + k * B)
        elif mixture.full:
            log_density_full(s.x, B, D, mixture.mu + k * D, s.P + k * size, s.c[k], s.residual, s.l + k * B)
        else:
            log_density_diag(s.x, B, D, mixture.mu + k * D, s.P + k * D, s.c[k], s.l + k * B)


cdef double sweep_blocks(const Data* data, const Mixture* mixture, const double* v, const double* origin, bint hard, ptrdiff_t B,
                         Scratch* s, double* mass, double* first, double* second) noexcept nogil:
    cdef ptrdiff_t N = data.N, D = data.D, start = 0, rows, k
    cdef bint is_few = few(D, mixture.full)
    cdef ptrdiff_t sums = sums_of_few(D) * W
    cdef double log_likelihood = 0
    if is_few:
        memset(s.partial, 0, mixture.K * sums * sizeof(double))
    while start < N:
        rows = min(B, N - start)
        log_density_of_block(data, mixture, start, rows, B, s)
        if hard:
            harden(s.l, mixture.K, B, s.top, s.total)
        else:
            normalise(s.l, mixture.K, B, s.top, s.total)
        load_weights(v + start if v != NULL else NULL, rows, B, s.weight)
        log_likelihood += share_rows(s.weight, v == NULL and rows == B, B, s.top, s.total, s.share)
        for k in range(mixture.K):
            if is_few:
                accumulate_few(s.x, s.l + k * B, s.share, B, D, origin + k * D, s.partial + k * sums)
                continue
            mass[k] += take_shares(s.l + k * B, s.share, B)
            if mixture.full:
                accumulate_full(s.x, s.l + k * B, B, D, origin + k * D, s.moved, s.weighted, first + k * D, second + k * D * D)
            else:
                accumulate_diag(s.x, s.l + k * B, B, D, origin + k * D, first + k * D, second + k * D)
        start += rows
    if is_few:
        for k in range(mixture.K):
            finish_few(s.partial + k * sums, D, mass + k, first + k * D, second + k * (D * D if mixture.full else D))
    return log_likelihood


def sweep(*, cnp.ndarray X not None, cnp.ndarray weights, cnp.ndarray means not None, cnp.ndarray P not None,
          cnp.ndarray log_constant not None, cnp.ndarray origin not None, bint hard, cnp.ndarray mass not None,
          cnp.ndarray first not None, cnp.ndarray second not None):
    """Add the statistics of `X` to `mass`, `first` and `second`: see `emfuse.reference.sweep`, the definition."""
    cdef Data data
    cdef Mixture mixture
    cdef Scratch scratch
    describe(X, &data)
    cdef ptrdiff_t D = data.D, K
    describe_mixture(means, P, log_constant, D, &mixture)
    K = mixture.K
    cdef const double* v = doubles(weights, data.N, "weights") if weights is not None else NULL
    cdef const double* o = doubles(origin, K * D, "origin")
    cdef double* mass_sums = doubles(mass, K, "mass", True)
    cdef double* first_sums = doubles(first, K * D, "first", True)
    cdef double* second_sums = doubles(second, K * D * D if mixture.full else K * D, "second", True)
    cdef ptrdiff_t B = rows_per_block(data.N, D, K)
    cdef double log_likelihood
    if not allocate(&scratch, B, D, K, mixture.full):
        raise MemoryError(f"no memory for the scratch of a block of {B} rows")
    with nogil:
        prepare(&mixture, D, &scratch)
        log_likelihood = sweep_blocks(&data, &mixture, v, o, hard, B, &scratch, mass_sums, first_sums, second_sums)
        free(scratch.memory)
    return log_likelihood


def evaluate(*, cnp.ndarray X not None, cnp.ndarray means not None, cnp.ndarray P not None, cnp.ndarray log_constant not None,
             cnp.ndarray log_density=None, cnp.ndarray labels=None, cnp.ndarray responsibilities=None):
    """Fill whichever outputs are given, row by row: see `emfuse.reference.evaluate`, the definition."""
    cdef Data data
    cdef Mixture mixture
    cdef Scratch scratch
    describe(X, &data)
    cdef ptrdiff_t N = data.N, D = data.D, K, start = 0, rows
    describe_mixture(means, P, log_constant, D, &mixture)
    K = mixture.K
    cdef double* density_out = doubles(log_density, N, "log_density", True) if log_density is not None else NULL
    cdef double* posterior_out = doubles(responsibilities, N * K, "responsibilities", True) if responsibilities is not None else NULL
    cdef int64_t* label_out = NULL
    if labels is not None:
        if cnp.PyArray_TYPE(labels) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY(labels) or cnp.PyArray_SIZE(labels) != N:
            raise TypeError(f"labels must be a C-ordered, writable, native int64 array of {N} elements")
        label_out = <int64_t*>cnp.PyArray_DATA(labels)
    cdef ptrdiff_t B = rows_per_block(N, D, K)
    if not allocate(&scratch, B, D, K, mixture.full):
        raise MemoryError(f"no memory for the scratch of a block of {B} rows")
    with nogil:
        prepare(&mixture, D, &scratch)
        while start < N:
            rows = min(B, N - start)
            log_density_of_block(&data, &mixture, start, rows, B, &scratch)
            if label_out != NULL:
                most_likely(scratch.l, K, B, rows, label_out + start)
            if density_out != NULL or posterior_out != NULL:
                normalise(scratch.l, K, B, scratch.top, scratch.total)
            if density_out != NULL:
                log_densities(scratch.top, scratch.total, rows, density_out + start)
            if posterior_out != NULL:
                posteriors(scratch.l, scratch.total, K, B, rows, posterior_out + start * K)
            start += rows
        free(scratch.memory)
