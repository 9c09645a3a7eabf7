"""The Cython extensions of aimlite/_ext and the tables of AimQL's parser; everything else about the package is in pyproject.toml.

AIMLITE_DEBUG=1 builds them unoptimised, with bounds checks; AIMLITE_DEBUG=sanitize adds the address and undefined-behaviour sanitizers.
"""

import os
import runpy
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("AIMLITE_DEBUG", "")
SANITIZE = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"] if DEBUG == "sanitize" else []
FLAGS = ["-O0", "-g", *SANITIZE] if DEBUG else ["-O3"]

extensions = [
    Extension(
        source.removesuffix(".pyx").replace("/", "."),
        [source],
        include_dirs=["aimlite/_ext"],
        depends=sorted(glob("aimlite/_ext/*.h")),
        extra_compile_args=FLAGS,
        extra_link_args=SANITIZE,
    )
    for source in sorted(glob("aimlite/_ext/*.pyx"))
]

runpy.run_path("aimlite/query/tables.py", run_name="__main__")
setup(
    ext_modules=cythonize(
        extensions,
        force=bool(DEBUG),
        compiler_directives={
            "language_level": 3,
            "boundscheck": bool(DEBUG),
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": False,
            "autotestdict": False,  # else a __test__ that the stubs would have to declare
        },
    )
)
