# The fused pass, written once. Each `_sweep_<isa>.pyx` includes it and is compiled for its own instruction set.
#
# Here arrays become pointers, checked; the walk over them, without the GIL, is in _walk.h, and the equations are in reference.py.

cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool
from libcpp.vector cimport vector
from cpython.exc cimport PyErr_CheckSignals

cnp.import_array()

cdef extern from "_walk.h" nogil:
    cdef enum Form: FULL, TIED, DIAG, SPHERICAL
    cdef cppclass Data:
        const char* start
        int single
        ptrdiff_t N
        ptrdiff_t D
        ptrdiff_t row_step
        ptrdiff_t column_step
    cdef cppclass Mixture:
        ptrdiff_t K
        int form
        const double* mu
        const double* P
        const double* c
    bint sweep_rows(const Data&, const Mixture&, const double* v, const double* origin, bint hard, bint single,
                    double* mass, double* first, double* second, double* log_likelihood)
    bint evaluate_rows(const Data&, const Mixture&, double* log_density, int64_t* labels, double* responsibilities)


cdef extern from "_decomposed.h" nogil:
    cdef enum Structure: OF_FORM, EII, EEI, VEI, EVI, EEV, VEV, EVV, VEE, EVE, VVE
    cdef cppclass Decomposed:
        Decomposed(int structure, int form, ptrdiff_t K, ptrdiff_t D, double least_left) except +


cdef extern from "_maximise.h" nogil:
    cdef cppclass Rules:
        double reg_covar
        double spare_mass
        double far
        double least_left
        double most_rounding
        double least_sd
        const double* floor
        double floor_rows
        double most_floor
    bint factor_plainly(int form, ptrdiff_t K, ptrdiff_t D, const double* weights, const double* covariances, double least_left,
                        double* P, double* log_constant)
    int maximise_plainly(int form, ptrdiff_t K, ptrdiff_t D, const double* origin, const double* mass, const double* first,
                         const double* second, const Rules&, Decomposed* kind, const double* before, double* weights, double* means,
                         double* covariances, double* P, double* log_constant)


cdef extern from "_accelerate.h" nogil:
    cdef cppclass Limits:
        ptrdiff_t pairs
        ptrdiff_t rebase
        double radius
        double curvature
        double least_weight
        double look_below
        double most_log
        double least_left
    cdef cppclass Point:
        const double* w
        const double* mu
        const double* P
    cdef cppclass Advice:
        int trial
        double promised
        double remaining
        bint settled
    cdef cppclass Emqn:
        Emqn(int form, ptrdiff_t K, ptrdiff_t D, double weight, ptrdiff_t warm_up, const Limits& limits) except +
        Advice step(const Point& here, const Point& image, double gained, double* covariances)
        void refuse()
        Point tried()
        const double* constant_of_tried()


cdef extern from "_climb.h" nogil:
    cdef enum Ending: STOPPED, LEFT_ALONE, NO_MEMORY, INTERRUPTED
    cdef cppclass Rows:
        Data data
        const double* v
        double weight
        ptrdiff_t group
    cdef cppclass Stop:
        double within
        double gain
        double gain_a_row
        double relative_gain
        ptrdiff_t most_sweeps
        ptrdiff_t steps
        double noise
        double gain_before
        double before
    cdef cppclass Mix:
        vector[double] w, mu, C, P, c
    cdef cppclass Sums:
        vector[double] mass, first, second
        double log_likelihood
    cdef cppclass Climb:
        Climb(const Rows& rows, int form, int structure, ptrdiff_t K, const Rules& rules, double floor_constant, const Stop& stop) except +
        Ending run(Emqn* emqn, bool (*interrupted)() noexcept nogil) except +
        ptrdiff_t numbers
        Mix here
        Sums sums
        vector[double] trace
        ptrdiff_t sweeps
        double promised, remaining
        bint settled, keeps
        ptrdiff_t of_entry()
        vector[double] history, when


cdef extern from "_many.h" nogil:
    cdef enum Outcome: CONVERGED, AT_LIMIT, NOT_PLAINLY, TOO_FEW_ROWS, NOT_FINITE, OUT_OF_MEMORY
    cdef cppclass Wish:
        int form, structure
        ptrdiff_t K, D, warm_up, starts
        Rules rules
        double variance_floor
        Stop stop
        bint accelerate, by_parts, from_result
        Limits limits
        uint64_t seed
    cdef cppclass Result:
        double* weights
        double* means
        double* covariances
        double log_likelihood, distance
        ptrdiff_t sweeps
    Outcome fit_one(const Wish& wish, uint64_t number, const double* x, const double* v, ptrdiff_t N, Result* result) except +


FORMS = {"full": FULL, "tied": TIED, "diag": DIAG, "spherical": SPHERICAL, "EII": SPHERICAL, "EEI": DIAG, "VEI": DIAG, "EVI": DIAG,
         "EEV": FULL, "VEV": FULL, "EVV": FULL, "VEE": FULL, "EVE": FULL, "VVE": FULL}
STRUCTURES = {"full": OF_FORM, "tied": OF_FORM, "diag": OF_FORM, "spherical": OF_FORM, "EII": EII, "EEI": EEI, "VEI": VEI, "EVI": EVI,
              "EEV": EEV, "VEV": VEV, "EVV": EVV, "VEE": VEE, "EVE": EVE, "VVE": VVE}


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
    mixture.mu = doubles(means, K * D, "means")
    if cnp.PyArray_NDIM(P) == 3:
        mixture.form = TIED if cnp.PyArray_DIM(P, 0) == 1 and K > 1 else FULL
    else:
        mixture.form = SPHERICAL if cnp.PyArray_DIM(P, 1) == 1 and D > 1 else DIAG
    mixture.P = doubles(P, size_of(mixture.form, K, D), "P")
    mixture.c = doubles(log_constant, K, "log_constant")
    return 0


cdef ptrdiff_t size_of(int form, ptrdiff_t K, ptrdiff_t D) noexcept:
    """Numbers in P, and in `second`."""
    if form == FULL:
        return K * D * D
    if form == TIED:
        return D * D
    return K * D if form == DIAG else K


def sweep(*, cnp.ndarray X not None, cnp.ndarray weights, cnp.ndarray means not None, cnp.ndarray P not None,
          cnp.ndarray log_constant not None, cnp.ndarray origin not None, bint hard, cnp.ndarray mass not None,
          cnp.ndarray first not None, cnp.ndarray second, bint single=False):
    """Add the statistics of `X` to `mass`, `first` and `second`: see `emfuse.reference.sweep`, the definition."""
    cdef Data data
    cdef Mixture mixture
    describe(X, &data)
    describe_mixture(means, P, log_constant, data.D, &mixture)
    cdef ptrdiff_t K = mixture.K
    cdef const double* v = doubles(weights, data.N, "weights") if weights is not None else NULL
    cdef const double* o = doubles(origin, K * data.D, "origin")
    cdef double* mass_sums = doubles(mass, K, "mass", True)
    cdef double* first_sums = doubles(first, K * data.D, "first", True)
    if second is None and mixture.form != TIED:
        raise TypeError("second may be None only where all components share P")
    cdef double* second_sums = doubles(second, size_of(mixture.form, K, data.D), "second", True) if second is not None else NULL
    cdef double log_likelihood = 0
    cdef bint done
    with nogil:
        done = sweep_rows(data, mixture, v, o, hard, single, mass_sums, first_sums, second_sums, &log_likelihood)
    if not done:
        raise MemoryError("no memory for the scratch of a sweep")
    return log_likelihood


def evaluate(*, cnp.ndarray X not None, cnp.ndarray means not None, cnp.ndarray P not None,
             cnp.ndarray log_constant not None, cnp.ndarray log_density=None, cnp.ndarray labels=None, cnp.ndarray responsibilities=None):
    """Fill whichever outputs are given, row by row: see `emfuse.reference.evaluate`, the definition."""
    cdef Data data
    cdef Mixture mixture
    describe(X, &data)
    describe_mixture(means, P, log_constant, data.D, &mixture)
    cdef ptrdiff_t N = data.N
    cdef double* density_out = doubles(log_density, N, "log_density", True) if log_density is not None else NULL
    cdef double* posterior_out = doubles(responsibilities, N * mixture.K, "responsibilities", True) if responsibilities is not None else NULL
    cdef int64_t* label_out = NULL
    if labels is not None:
        if cnp.PyArray_TYPE(labels) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY(labels) or cnp.PyArray_SIZE(labels) != N:
            raise TypeError(f"labels must be a C-ordered, writable, native int64 array of {N} elements")
        label_out = <int64_t*>cnp.PyArray_DATA(labels)
    cdef bint done
    with nogil:
        done = evaluate_rows(data, mixture, density_out, label_out, posterior_out)
    if not done:
        raise MemoryError("no memory for the scratch of an evaluation")


def factor(*, cnp.ndarray weights not None, cnp.ndarray means not None, cnp.ndarray covariances not None, double least_left,
           cnp.ndarray P not None, cnp.ndarray log_constant not None):
    """The factors of a mixture where they are plain arithmetic: see `emfuse.reference.factor`, and `emfuse.parameters` for what is not."""
    cdef Mixture shape
    if cnp.PyArray_NDIM(means) != 2:
        raise TypeError(f"means must be 2-D, got {means.ndim}-D")
    cdef ptrdiff_t K = cnp.PyArray_DIM(means, 0), D = cnp.PyArray_DIM(means, 1)
    describe_mixture(means, P, log_constant, D, &shape)
    cdef ptrdiff_t size = size_of(shape.form, K, D)
    return factor_plainly(shape.form, K, D, doubles(weights, K, "weights"), doubles(covariances, size, "covariances"), least_left,
                          doubles(P, size, "P", True), doubles(log_constant, K, "log_constant", True))


def maximise(*, str structure not None, cnp.ndarray before, cnp.ndarray origin not None, cnp.ndarray mass not None,
             cnp.ndarray first not None, cnp.ndarray second not None, double reg_covar, double spare_mass, cnp.ndarray floor,
             double floor_rows, double most_floor, double far, double least_left, double most_rounding, double least_sd,
             cnp.ndarray weights not None, cnp.ndarray means not None, cnp.ndarray covariances not None, cnp.ndarray P not None,
             cnp.ndarray log_constant not None):
    """The M step and its factors where they are plain arithmetic: see `emfuse.reference.maximise`, and `emfuse.maximise` for what is not."""
    cdef Mixture shape
    cdef Rules rules
    cdef Decomposed* kind = NULL
    if structure not in STRUCTURES:
        return 0
    if cnp.PyArray_NDIM(origin) != 2:
        raise TypeError(f"origin must be 2-D, got {origin.ndim}-D")
    cdef ptrdiff_t K = cnp.PyArray_DIM(origin, 0), D = cnp.PyArray_DIM(origin, 1)
    describe_mixture(origin, P, log_constant, D, &shape)
    cdef ptrdiff_t size = size_of(shape.form, K, D)
    rules.reg_covar, rules.spare_mass, rules.far = reg_covar, spare_mass, far
    rules.least_left, rules.most_rounding, rules.least_sd = least_left, most_rounding, least_sd
    rules.floor = doubles(floor, D, "floor") if floor is not None else NULL
    rules.floor_rows, rules.most_floor = floor_rows, most_floor
    cdef int which = STRUCTURES[structure]
    cdef const double* old = doubles(before, size, "before") if before is not None else NULL
    if which != OF_FORM:
        kind = new Decomposed(which, shape.form, K, D, least_left)
    try:
        return maximise_plainly(
            shape.form, K, D, shape.mu, doubles(mass, K, "mass"), doubles(first, K * D, "first"), doubles(second, size, "second"), rules,
            kind, old, doubles(weights, K, "weights", True), doubles(means, K * D, "means", True),
            doubles(covariances, size, "covariances", True), doubles(P, size, "P", True), doubles(log_constant, K, "log_constant", True))
    finally:
        del kind


cdef class QuasiNewton:
    """`emfuse.accelerate.Emqn` for few features; that is the definition."""

    cdef Emqn* emqn
    cdef int form
    cdef ptrdiff_t K, D, size

    def __cinit__(self, *, str form, ptrdiff_t K, ptrdiff_t D, double weight, ptrdiff_t warm_up, ptrdiff_t pairs, ptrdiff_t rebase,
                  double radius, double curvature, double least_weight, double look_below, double most_log, double least_left):
        cdef Limits limits
        limits.pairs, limits.rebase, limits.radius, limits.curvature = pairs, rebase, radius, curvature
        limits.least_weight, limits.look_below, limits.most_log, limits.least_left = least_weight, look_below, most_log, least_left
        self.form = FORMS[form]
        self.K, self.D, self.size = K, D, size_of(self.form, K, D)
        self.emqn = new Emqn(self.form, K, D, weight, warm_up, limits)

    def __dealloc__(self):
        del self.emqn

    def step(self, *, tuple here not None, tuple image not None, double gained, cnp.ndarray weights not None,
             cnp.ndarray means not None, cnp.ndarray covariances not None, cnp.ndarray P not None, cnp.ndarray log_constant not None):
        """From a point and its image, each (weights, means, P), fill a trial; return (trial, promised, remaining, settled).

        trial is 0 where there is none, 2 where its factors are left to others, else 1.
        """
        cdef Point at, to, tried
        self.describe(here, &at)
        self.describe(image, &to)
        cdef double* w = doubles(weights, self.K, "weights", True)
        cdef double* mu = doubles(means, self.K * self.D, "means", True)
        cdef double* p = doubles(P, self.size, "P", True)
        cdef double* c = doubles(log_constant, self.K, "log_constant", True)
        cdef Advice advice = self.emqn.step(at, to, gained, doubles(covariances, self.size, "covariances", True))
        if advice.trial:
            tried = self.emqn.tried()
            memcpy(w, tried.w, self.K * sizeof(double))
            memcpy(mu, tried.mu, self.K * self.D * sizeof(double))
            memcpy(p, tried.P, self.size * sizeof(double))
            memcpy(c, self.emqn.constant_of_tried(), self.K * sizeof(double))
        return advice.trial, advice.promised, advice.remaining, advice.settled

    def refuse(self):
        """Take notice that the last trial did not gain what was asked."""
        self.emqn.refuse()

    cdef int describe(self, tuple arrays, Point* point) except -1:
        point.w = doubles(arrays[0], self.K, "weights")
        point.mu = doubles(arrays[1], self.K * self.D, "means")
        point.P = doubles(arrays[2], self.size, "P")
        return 0


def quasi_newton(**shape_and_constants):
    """Return a `QuasiNewton`."""
    return QuasiNewton(**shape_and_constants)


cdef bool interrupted() noexcept nogil:
    """Whether a signal's handler has raised, Ctrl-C's for one; the error is left set."""
    with gil:
        return PyErr_CheckSignals() < 0


cdef cnp.ndarray array_of(const vector[double]& numbers):
    cdef cnp.npy_intp size = <cnp.npy_intp>numbers.size()
    cdef cnp.ndarray made = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_DOUBLE)
    if size:
        memcpy(cnp.PyArray_DATA(made), numbers.data(), size * sizeof(double))
    return made


cdef int raise_what_is_set() except? -1:
    return -1


def climb(*, str structure not None, cnp.ndarray X not None, cnp.ndarray sample_weight, double weight, ptrdiff_t group, double noise,
          cnp.ndarray weights not None, cnp.ndarray means not None, cnp.ndarray covariances not None, cnp.ndarray P not None,
          cnp.ndarray log_constant not None, cnp.ndarray mass not None, cnp.ndarray first not None, cnp.ndarray second not None,
          double reg_covar, double spare_mass, cnp.ndarray floor, double floor_rows, double floor_constant, double most_floor,
          double far, double least_left, double most_rounding, double least_sd, double within, double gain, double gain_a_row,
          double relative_gain, double gain_before, double before, ptrdiff_t most_sweeps, ptrdiff_t steps, QuasiNewton accelerator,
          list history):
    """Climb from a mixture by EM, in place, until a rule says so; and fill the statistics under it.

    Returns (whether a rule stopped it, trace, sweeps, promised, remaining, settled, log-likelihood), or None, where it has no M step
    of that structure. Into `history`, unless it is None, goes an array of weights, means and covariances, one entry of the trace after
    the other, and one of when they were swept, seconds.
    """
    if structure not in STRUCTURES:
        return None
    cdef Rows rows
    cdef Mixture mixture
    cdef Rules rules
    cdef Stop stop
    describe(X, &rows.data)
    describe_mixture(means, P, log_constant, rows.data.D, &mixture)
    cdef ptrdiff_t K = mixture.K, D = rows.data.D, size = size_of(mixture.form, K, D)
    rows.v = doubles(sample_weight, rows.data.N, "sample_weight") if sample_weight is not None else NULL
    rows.weight, rows.group = weight, group
    rules.reg_covar, rules.spare_mass, rules.far = reg_covar, spare_mass, far
    rules.least_left, rules.most_rounding, rules.least_sd = least_left, most_rounding, least_sd
    rules.floor = doubles(floor, D, "floor") if floor is not None else NULL
    rules.floor_rows, rules.most_floor = floor_rows, most_floor
    stop.within, stop.gain, stop.gain_a_row, stop.relative_gain = within, gain, gain_a_row, relative_gain
    stop.most_sweeps, stop.steps, stop.noise, stop.gain_before, stop.before = most_sweeps, steps, noise, gain_before, before
    arrays = ((weights, K), (means, K * D), (covariances, size), (P, size), (log_constant, K), (mass, K), (first, K * D), (second, size))
    cdef double* at[8]
    cdef ptrdiff_t lengths[8]
    cdef ptrdiff_t i
    for i, (array, length) in enumerate(arrays):
        at[i], lengths[i] = doubles(array, length, "a mixture and its statistics", True), length
    cdef Climb* it = new Climb(rows, mixture.form, STRUCTURES[structure], K, rules, floor_constant, stop)
    cdef Emqn* emqn = accelerator.emqn if accelerator is not None else NULL
    cdef Ending ending
    cdef vector[double]* kept[8]
    try:
        kept[0], kept[1], kept[2], kept[3], kept[4] = &it.here.w, &it.here.mu, &it.here.C, &it.here.P, &it.here.c
        kept[5], kept[6], kept[7] = &it.sums.mass, &it.sums.first, &it.sums.second
        for i in range(5):
            memcpy(kept[i].data(), at[i], lengths[i] * sizeof(double))
        it.keeps = history is not None
        with nogil:
            ending = it.run(emqn, interrupted)
        if ending == INTERRUPTED:
            raise_what_is_set()
        if ending == NO_MEMORY:
            raise MemoryError("no memory for the scratch of a sweep")
        for i in range(8):
            memcpy(at[i], kept[i].data(), lengths[i] * sizeof(double))
        if history is not None:
            history.extend((array_of(it.history), array_of(it.when)))
        return (ending == STOPPED, [it.trace[i] for i in range(<ptrdiff_t>it.trace.size())], it.sweeps, it.promised, it.remaining,
                it.settled, it.sums.log_likelihood)
    finally:
        del it


def climb_many(*, cnp.ndarray X not None, cnp.ndarray sample_weight, cnp.ndarray offsets not None, ptrdiff_t begin, ptrdiff_t end,
               str structure not None, ptrdiff_t K, bint from_result, ptrdiff_t starts, uint64_t seed, bint by_parts, bint accelerate,
               double variance_floor, double most_floor, double far, double least_left, double most_rounding, double least_sd,
               double within, double gain, double gain_a_row, double relative_gain, double gain_before, double before,
               ptrdiff_t most_sweeps, ptrdiff_t steps, double noise, ptrdiff_t warm_up, ptrdiff_t pairs, ptrdiff_t rebase,
               double radius, double curvature, double least_weight, double look_below, double most_log,
               cnp.ndarray weights not None, cnp.ndarray means not None, cnp.ndarray covariances not None,
               cnp.ndarray log_likelihood not None, cnp.ndarray distance not None, cnp.ndarray sweeps not None,
               cnp.ndarray outcome not None):
    """Fit the data sets from `begin` to `end`, rows offsets[i] to offsets[i + 1] of X each, into row i of the outputs.

    With `from_result` that row has the start, and keeps it unless the outcome is CONVERGED or AT_LIMIT. Of a structure whose M step
    it has not, none is fitted.
    """
    if structure not in STRUCTURES:
        return
    cdef Data data
    describe(X, &data)
    cdef ptrdiff_t M = cnp.PyArray_SIZE(offsets) - 1, D = data.D
    cdef const double* x = doubles(X, data.N * D, "X")
    cdef const double* v = doubles(sample_weight, data.N, "sample_weight") if sample_weight is not None else NULL
    for array in (offsets, sweeps, outcome):
        if array.dtype != "int64" or not array.flags.c_contiguous:
            raise TypeError("offsets, sweeps and outcome must be C-ordered int64 arrays")
    if sweeps.size != M or outcome.size != M or not 0 <= begin <= end <= M:
        raise TypeError("sweeps and outcome must have an entry for each data set")
    cdef const int64_t* at = <const int64_t*>cnp.PyArray_DATA(offsets)
    cdef ptrdiff_t i
    if M < 0 or at[0] != 0 or at[M] != data.N:
        raise ValueError("offsets must rise from 0 to the number of rows")
    for i in range(M):
        if at[i + 1] < at[i]:
            raise ValueError("offsets must rise from 0 to the number of rows")
    cdef int64_t* swept = <int64_t*>cnp.PyArray_DATA(sweeps)
    cdef int64_t* ended = <int64_t*>cnp.PyArray_DATA(outcome)
    cdef Wish wish
    wish.form, wish.structure = FORMS[structure], STRUCTURES[structure]
    wish.K, wish.D, wish.starts, wish.seed, wish.by_parts, wish.accelerate = K, D, starts, seed, by_parts, accelerate
    wish.from_result = from_result
    wish.variance_floor, wish.warm_up = variance_floor, warm_up
    wish.rules.reg_covar, wish.rules.spare_mass, wish.rules.far = 0, 0, far
    wish.rules.floor = NULL
    wish.rules.least_left, wish.rules.most_rounding, wish.rules.least_sd = least_left, most_rounding, least_sd
    wish.rules.most_floor = most_floor
    wish.stop.within, wish.stop.gain, wish.stop.gain_a_row, wish.stop.relative_gain = within, gain, gain_a_row, relative_gain
    wish.stop.most_sweeps, wish.stop.steps, wish.stop.noise = most_sweeps, steps, noise
    wish.stop.gain_before, wish.stop.before = gain_before, before
    wish.limits.pairs, wish.limits.rebase, wish.limits.radius, wish.limits.curvature = pairs, rebase, radius, curvature
    wish.limits.least_weight, wish.limits.look_below, wish.limits.most_log = least_weight, look_below, most_log
    wish.limits.least_left = least_left
    cdef ptrdiff_t size = size_of(wish.form, K, D)
    cdef double* w = doubles(weights, M * K, "weights", True)
    cdef double* mu = doubles(means, M * K * D, "means", True)
    cdef double* C = doubles(covariances, M * size, "covariances", True)
    cdef double* L = doubles(log_likelihood, M, "log_likelihood", True)
    cdef double* left = doubles(distance, M, "distance", True)
    cdef Result result
    cdef const double* own
    with nogil:
        for i in range(begin, end):
            result.weights, result.means, result.covariances = w + i * K, mu + i * K * D, C + i * size
            result.sweeps = 0
            own = v
            if v != NULL:
                own = v + at[i]
            ended[i] = fit_one(wish, i, x + at[i] * D, own, at[i + 1] - at[i], &result)
            swept[i] = result.sweeps
            if ended[i] <= AT_LIMIT:
                L[i], left[i] = result.log_likelihood, result.distance
