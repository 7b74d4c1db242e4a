"""Builds the fused pass once per row of `src/emfuse/_isas.py`; everything else is in pyproject.toml.

A row that cannot be built is reported, loudly, and left out: the installed package then says so when it is imported, and
`emfuse kernels` shows it. EMFUSE_BUILD says otherwise: "require" makes it an error; "wheel", for publishing, does too, and builds
for Python's stable ABI, so that one wheel serves every version with a GIL; "none" builds pure Python.
"""

import os
import runpy
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

TABLE = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "src", "emfuse", "_isas.py"))
NAMES = ("_lanes", "_density", "_sums", "_walk", "_factor", "_decomposed", "_maximise", "_accelerate", "_climb", "_many", "_cpu")
HEADERS = [f"src/emfuse/{name}.h" for name in NAMES]
WISH = os.environ.get("EMFUSE_BUILD", "")
STABLE = WISH == "wheel" and not sysconfig.get_config_var("Py_GIL_DISABLED")
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]
# MSVC's C++ library goes into a published module, as a machine may lack its DLL; the C library stays the system's.
MSVC_PUBLISHED = ["/MT"], ["/NODEFAULTLIB:libucrt.lib", "/DEFAULTLIB:ucrt.lib"]


def extensions():
    if WISH == "none":
        return []
    import numpy
    from Cython.Build import cythonize

    made = [
        Extension(
            isa.module,
            [f"src/emfuse/_sweep_{isa.name}.pyx"],
            include_dirs=[numpy.get_include(), "src/emfuse"],
            define_macros=[*MACROS, ("Py_LIMITED_API", "0x030B0000")] if STABLE else MACROS,
            py_limited_api=STABLE,
            depends=["src/emfuse/_sweep.pxi", *HEADERS],
            language="c++",
        )
        for isa in TABLE["isas_of"]()
    ]
    directives = {
        "language_level": 3,
        "boundscheck": False,
        "wraparound": False,
        "cdivision": True,
        "freethreading_compatible": True,
    }
    return cythonize(made, compiler_directives=directives)


class BuildEach(build_ext):
    """Give each row its own flags, build them side by side, and let one that fails take only itself away."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, extension):
        isa = next(isa for isa in TABLE["ISAS"] if isa.module == extension.name)
        msvc = self.compiler.compiler_type == "msvc"
        extension.extra_compile_args = TABLE["compiler_flags"](isa, msvc=msvc)
        if msvc and WISH == "wheel":
            extension.extra_compile_args += MSVC_PUBLISHED[0]
            extension.extra_link_args = MSVC_PUBLISHED[1]
        if not msvc and "-g" not in os.environ.get("CFLAGS", "").split():
            extension.extra_compile_args.append("-g0")  # Python asks for debugging symbols: seven times the size, twice the time
        try:
            super().build_extension(extension)
        except Exception as error:
            if WISH in ("require", "wheel"):
                raise
            extension.optional = True  # so that nothing looks for its file afterwards
            line = "!" * 100
            print(
                f"{line}\nemfuse: the build '{isa.name}' ({isa.needs}) of its compiled pass FAILED: {error}\n"
                "emfuse will be installed without it and will be slower. A C++ compiler (g++, clang++ or MSVC) and\n"
                f"the headers of Python are what it takes; EMFUSE_BUILD=require makes this an error.\n{line}",
                file=sys.stderr,
            )


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildEach},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
