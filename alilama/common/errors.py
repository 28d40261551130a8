"""A user's mistake is one line: what was found, where, what to do."""

import argparse
import errno
import io
import os
import re
import reprlib
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real


class UserError(ValueError):
    """Something the user can mend; its message says what was found, where, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [f"Error: {self}"]


def expect(name: str, value: object, *kinds: type):
    """Raises UserError unless an argument is of one of some types. True and False are no numbers, and no number is huge."""
    if type(value) in kinds and type(value) is not int:  # as a rule, and a fifth of the time
        return
    is_huge = isinstance(value, Integral) and not -(2**63) <= value < 2**63
    if is_huge or not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(map(describe_kind, kinds))
        raise UserError(f"{name} = {'a huge number' if is_huge else shown(value)}: expected {expected}")


def shown(value: object) -> str:
    """Returns what a message shows of a value: a short line, however large it is."""
    return " ".join(reprlib.repr(value).split())


def describe_kind(kind: type) -> str:
    words = {Integral: "a whole number of at most 63 bits", Real: "a number", str: "text", type(None): "None"}
    return words.get(kind, kind.__name__)


def listed(name: str, values: Iterable, kind: type | None = None) -> list:
    """Returns the elements of an argument. Raises UserError for text, for what has none, and for any of another kind."""
    if isinstance(values, str | bytes):
        raise UserError(f"{name} = {shown(values)}: expected a list")
    elements = []
    try:
        for element in values:
            elements.append(element)
            if kind is not None:
                expect(f"{name}[{len(elements) - 1}]", element, kind)
    except TypeError as error:
        raise UserError(f"{name} = {shown(values)}: expected a list ({error})") from None
    return elements


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose complaints are UserErrors, and which takes no shortened names."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str):
        raise UserError(f"{message}; --help lists what there is")


def begin_script(name: str):
    """Lets Ctrl-C end the script called `name`, if it is the one that runs, without a word, until `one_line_errors` begins.

    To be called before other imports, which take seconds.
    """
    if name == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the script with one line for a user's mistake, a file that cannot be used, memory that runs out, and Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.stderr is None:  # it was closed, and progress bars write there
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, open as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal may lack a character, and what Windows writes into files by itself lacks most.
            is_file = sys.platform == "win32" and not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            stream.reconfigure(encoding="utf-8" if is_file else None, errors="replace")
    try:
        yield
    except (UserError, OSError) as error:
        if not is_closed_output(error):
            sys.exit(f"Error: {error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(
            f"Error: out of memory: give a shorter text, or a smaller batch_size, max_seq_len or model ({first_line(error)})"
        )


def is_closed_output(error: Exception) -> bool:
    """Whether whoever read the output, such as `head`, has had enough; Windows calls that an invalid argument, as much else."""
    if sys.platform != "win32" or not isinstance(error, OSError) or error.errno != errno.EINVAL:
        return isinstance(error, BrokenPipeError)
    try:
        sys.stdout.flush()  # what could not be written is still there
    except OSError:
        return True
    return False


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is used up: Python's, or torch's on a GPU or on the CPU."""
    says_so = re.search("out of memory|not enough memory|allocate memory", str(error))
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_so is not None)


def first_line(error: Exception) -> str:
    """Returns what an error says in its first line, or what kind it is where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
