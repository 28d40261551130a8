"""Builds the C++ (tokenizer, attention on the CPU) and installs the package; all else is in pyproject.toml."""

import platform
import shutil
import sys
from glob import glob

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools.errors import PlatformError

SOURCES = ["unicode", "pretokenizer", "documents", "counter", "trainer", "encoder", "bindings"]
COMPILERS = {
    "Linux": "install a C++17 compiler (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)",
    "Darwin": "install Apple's command line tools (xcode-select --install)",
    "Windows": "install Visual Studio Build Tools with 'Desktop development with C++'",
}


class BuildTokenizer(build_ext):
    """Compiles with the flags of the compiler at hand; a missing one is one line."""

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


HEADERS = sorted([*glob("csrc/tokenizer/*.hpp"), *glob("csrc/tokenizer/*.inc")])
EXTENSIONS = [
    Pybind11Extension("alilama._bpe", [f"csrc/tokenizer/{name}.cpp" for name in SOURCES], cxx_std=17, depends=HEADERS)
]
if platform.system() == "Linux":  # elsewhere, and where it does not compile, attention and decoding take PyTorch's own way
    EXTENSIONS.append(
        Pybind11Extension(
            "alilama._kernels",
            sorted(glob("csrc/kernels/*.cpp")),
            cxx_std=17,
            depends=glob("csrc/kernels/*.hpp"),
            extra_compile_args=["-fopenmp", "-Wno-psabi"],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    )

setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": BuildTokenizer})
