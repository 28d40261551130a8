"""Builds the C++ (the tokenizer, the kernels for CPUs) and installs the package; all else is in pyproject.toml."""

import platform
import shutil
import sys
from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import PlatformError

COMPILERS = {
    "Linux": "install a C++17 compiler (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)",
    "Darwin": "install Apple's command line tools (xcode-select --install)",
    "Windows": "install Visual Studio Build Tools with 'Desktop development with C++'",
}


class BuildExtensions(build_ext):
    """Compiles with the flags of the compiler that is found; where there is none, says in one line how to install it."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            flags = ["/O2", "/W4", "/utf-8"]
        else:
            flags = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden"]
            if shutil.which(self.compiler.compiler_cxx[0]) is None:
                self.stop(f"{self.compiler.compiler_cxx[0]} was not found")
        for extension in self.extensions:
            extension.extra_compile_args += flags
        try:
            super().build_extensions()
        except PlatformError as error:  # setuptools found no Visual C++
            self.stop(str(error))

    def stop(self, found: str):
        remedy = COMPILERS.get(platform.system(), "install a C++17 compiler")
        sys.exit(f"Alilama's tokenizer is C++ and has to be compiled, but {found}: {remedy}, then run pip again.")


EXTENSIONS = [
    Pybind11Extension(
        "alilama._bpe",
        sorted(glob("csrc/tokenizer/*.cpp")),
        cxx_std=17,
        depends=["csrc/bindings.hpp", *glob("csrc/tokenizer/*.hpp"), *glob("csrc/tokenizer/*.inc")],
    )
]
if platform.system() == "Linux":  # elsewhere, and where it does not compile, attention and decoding take PyTorch's own way
    EXTENSIONS.append(
        Pybind11Extension(
            "alilama._kernels",
            sorted(glob("csrc/kernels/*.cpp")),
            cxx_std=17,
            depends=["csrc/bindings.hpp", *glob("csrc/kernels/*.hpp")],
            extra_compile_args=["-fopenmp", "-Wno-psabi"],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    )

setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": BuildExtensions})
