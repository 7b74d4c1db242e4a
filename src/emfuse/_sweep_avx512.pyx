# The pass for x86-64 CPUs with AVX-512 (F, BW, CD, DQ, VL).
include "_sweep.pxi"
