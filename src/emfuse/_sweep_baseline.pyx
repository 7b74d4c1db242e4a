# The pass for any CPU of this architecture; and the question which wider one this CPU can run.
include "_sweep.pxi"

cdef extern from "_cpu.h":
    int cpu_level()


def cpu():
    """The level of instructions that CPU and system offer: compare `emfuse._isas.Isa.level`."""
    return cpu_level()
