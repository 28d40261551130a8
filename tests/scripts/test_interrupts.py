"""Ctrl-C, and a terminal that is closed, at any moment of a script."""

import signal
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.posix

COMMANDS = {
    "train.py": [str(ROOT / "train.py"), "--help"],
    "tokenize_data.py": [str(ROOT / "tokenize_data.py"), "--help"],
    "generate": ["-m", "alilama.generate", "--help"],
    "evaluate": ["-m", "alilama.evaluate", "--help"],
    "export": ["-m", "alilama.export", "--help"],
}
# Stops the process at its first import of a library that takes long, so that Ctrl-C comes while it is imported.
STOPPED = """
import runpy, signal, sys, os
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests run in the background
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch"):
            print("importing", flush=True)
            signal.pause()
sys.meta_path.insert(0, Finder())
command = sys.argv[1:]
sys.argv = command[1:] if command[0] == "-m" else command
sys.path[0] = os.path.dirname(command[0])
if command[0] == "-m":
    runpy.run_module(command[1], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(command[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_libraries_are_imported_ends_a_script_without_a_word(name):
    command = [sys.executable, "-c", STOPPED, *COMMANDS[name]]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert said == ("", "") and process.returncode == -signal.SIGINT


TAKING = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # which a terminal leaves so, and nohup does not
IGNORING = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
STOP = """
import os, signal
from alilama.training.stopping import StopRequest
said = []
stop = StopRequest(lambda: print("asked"))
os.kill(os.getpid(), signal.SIGHUP)
print("still there")
os._exit(7 if stop.is_made(1, 1, 1) else 8)
"""


@pytest.mark.parametrize(
    ("before", "code", "said"), [(TAKING, 7, "asked\nstill there\n"), (IGNORING, 8, "still there\n")], ids=["closed", "nohup"]
)
def test_a_terminal_that_is_closed_ends_a_run_that_nohup_did_not_begin_and_a_file_still_gets_its_words(before, code, said):
    run = subprocess.run([sys.executable, "-u", "-c", f"{before}\n{STOP}"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (code, said, "")
