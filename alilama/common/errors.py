"""A user's mistake is one line: what was found, where, what to do."""

import argparse
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something the user can mend; its message says what was found, where, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [f"Error: {self}"]


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
            stream.reconfigure(errors="replace")  # a terminal may lack a character
    try:
        yield
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(
            f"Error: out of memory: give a shorter text, or a smaller batch_size, max_seq_len or model ({first_line(error)})"
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is used up: Python's, or torch's on a GPU or on the CPU."""
    says_so = re.search("out of memory|not enough memory|allocate memory", str(error))
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_so is not None)


def first_line(error: Exception) -> str:
    """Returns what an error says in its first line, or what kind it is where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
