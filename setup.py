"""Builds the fused pass once per row of `src/emfuse/_isas.py`; everything else is in pyproject.toml.

A row that cannot be built is reported, loudly, and left out: the installed package then says so when it is imported, and
`emfuse kernels` shows it. EMFUSE_BUILD=require makes it an error instead; EMFUSE_BUILD=none builds pure Python.
"""

import os
import runpy
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

TABLE = runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "src", "emfuse", "_isas.py"))
NAMES = ("_lanes", "_density", "_sums", "_walk", "_maximise", "_accelerate", "_climb", "_many", "_cpu")
HEADERS = [f"src/emfuse/{name}.h" for name in NAMES]
WISH = os.environ.get("EMFUSE_BUILD", "")


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
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")],
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
    """Give each row its own flags, and let one that fails take only itself away."""

    def build_extension(self, extension):
        isa = next(isa for isa in TABLE["ISAS"] if isa.module == extension.name)
        extension.extra_compile_args = TABLE["compiler_flags"](isa, msvc=self.compiler.compiler_type == "msvc")
        try:
            super().build_extension(extension)
        except Exception as error:
            if WISH == "require":
                raise
            extension.optional = True  # so that nothing looks for its file afterwards
            line = "!" * 100
            print(
                f"{line}\nemfuse: the build '{isa.name}' ({isa.needs}) of its compiled pass FAILED: {error}\n"
                "emfuse will be installed without it and will be slower. A C++ compiler (g++, clang++ or MSVC) and\n"
                f"the headers of Python are what it takes; EMFUSE_BUILD=require makes this an error.\n{line}",
                file=sys.stderr,
            )


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildEach})
