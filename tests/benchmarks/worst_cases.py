"""Measures the tokenizer on the text that is hardest for it, beside tiktoken: python tests/benchmarks/worst_cases.py

Linux only. Every figure comes from a process of its own. One tokenizer, trained on a part of every case, is used for all
of them; encoding and training run on one thread. Speeds are in MB of UTF-8 a second; the memory is what the process took at
its peak beyond what it held with the text in place.
"""

import argparse
import json
import math
import os
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
KIB = 1024  # the unit of VmHWM and of ru_maxrss
VOCAB_SIZE = 16_384
LIMIT_S = 120  # for one process


# ---- the cases: each makes text of about `size` bytes ----


def of_chars(chars: str, size: int, seed: int = 1) -> str:
    """Returns random characters, `size` bytes of them in UTF-8."""
    code_points = np.array([ord(char) for char in chars])
    number = size * len(chars) // len(chars.encode())
    return np.random.default_rng(seed).choice(code_points, number).astype("<u4").tobytes().decode("utf-32-le")


def span(first: int, last: int) -> str:
    return "".join(map(chr, range(first, last + 1)))


def words(letters: str, size: int, shortest: int, longest: int, gap: str = " ") -> str:
    """Returns random words, nearly all distinct."""
    text, lengths = of_chars(letters, size), np.random.default_rng(2).integers(shortest, longest + 1, size)
    ends = np.cumsum(lengths)
    ends = ends[ends < len(text)]
    return gap.join(text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True))


def alternating(parts: list[str], size: int) -> str:
    """Returns a character of each of `parts` in turn."""
    columns = [np.array([ord(char) for char in of_chars(part, size)[: size // 12]]) for part in parts]
    number = min(map(len, columns))
    return np.stack([column[:number] for column in columns], 1).astype("<u4").tobytes().decode("utf-32-le")


CHINESE, ARABIC, EMOJI = span(0x4E00, 0x5FFF), span(0x0621, 0x064A), span(0x1F300, 0x1F64F) + "\u200d\ufe0f"
ASCII_SYMBOLS = string.ascii_letters + string.punctuation
CASES: dict[str, Callable[[int], str]] = {
    "Chinese": lambda size: words(CHINESE, size, 4, 30, "，"),
    "Chinese, no gaps": lambda size: of_chars(CHINESE, size),
    "Arabic": lambda size: words(ARABIC, size, 2, 9),
    "emoji": lambda size: of_chars(EMOJI, size),
    "random bytes, replaced": lambda size: np.random.default_rng(1).bytes(size // 2).decode("utf-8", "replace"),
    "random letters, no gaps": lambda size: of_chars(string.ascii_lowercase, size),
    "letters and symbols, no gaps": lambda size: of_chars(ASCII_SYMBOLS, size),
    "a": lambda size: "a" * size,
    "ab": lambda size: "ab" * (size // 2),
    "NUL": lambda size: "\0" * size,
    "digits": lambda size: of_chars(string.digits, size),
    "spaces": lambda size: " " * size,
    "newline, space": lambda size: "\n " * (size // 2),
    "tabs": lambda size: "\t" * size,
    "newlines": lambda size: "\n" * size,
    "all white space": lambda size: of_chars(" \t\n\r\v\f\xa0\u2003\u3000", size),
    "distinct words": lambda size: words(string.ascii_lowercase, size, 3, 12),
    "distinct long words": lambda size: words(string.ascii_lowercase, size, 20, 60),
    "scripts in turn": lambda size: alternating(["abc", ARABIC, CHINESE, "012", "жщи", EMOJI], size),
    "apostrophes": lambda size: "'" * size,
    "contractions": lambda size: of_chars("'sStlLvVeEdm", size),
    "symbols": lambda size: of_chars(string.punctuation, size),
    "one byte of two": lambda size: of_chars("aé", size),
}
ONE_PIECE = ["Chinese, no gaps", "random letters, no gaps", "a", "ab", "NUL", "spaces", "newline, space", "symbols"]

FILES: dict[str, Callable[[int], bytes]] = {
    "random bytes": lambda size: np.random.default_rng(1).bytes(size),
    "NUL bytes": bytes,
    "one line of letters": lambda size: CASES["random letters, no gaps"](size).encode(),
    "one line of letters and symbols": lambda size: CASES["letters and symbols, no gaps"](size).encode(),
    "one line of symbols": lambda size: CASES["symbols"](size).encode(),
    "one line of a": lambda size: b"a" * size,
    "only spaces": lambda size: b" " * size,
}


# ---- one figure, in a process of its own ----


def measure(work: str, text: str, folder: Path) -> float:
    """Returns the seconds that one kind of work takes."""
    from alilama import Tokenizer

    if work == "train":
        path = folder / "case.txt"
        path.write_bytes(text.encode())
        start = time.perf_counter()
        try:
            Tokenizer.train(str(path), 2048, num_threads=1)
        except ValueError as error:  # so many merges are not in it, which is known at the end
            assert "more than this text can give" in str(error)
        return time.perf_counter() - start
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    encode = tokenizer.encode_to_numpy
    if work == "tiktoken":
        encode = tokenizer.to_tiktoken().encode_ordinary
    encode("a")
    start = time.perf_counter()
    encode(text)
    return time.perf_counter() - start


def peak_bytes() -> int:
    """What this process took at its peak since `forget_peak`."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * KIB


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")


def do_job(job: str):
    work, case, size, folder = json.loads(job)
    if work == "write":
        (Path(folder) / "file.txt").write_bytes(FILES[case](size))
        return print(json.dumps([size, 0, 0]))
    import alilama.data.tokenizer  # noqa: F401

    text = CASES[case](size)
    num_bytes = len(text.encode())
    forget_peak()
    before = peak_bytes()
    seconds = measure(work, text, Path(folder))
    print(json.dumps([num_bytes, seconds, peak_bytes() - before]))


def run_job(work: str, case: str, size: int, folder: Path) -> tuple[int, float, int] | str:
    """Returns bytes of text, seconds and bytes of memory, or what went wrong."""
    command = [sys.executable, __file__, "--job", json.dumps([work, case, size, str(folder)])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"over {LIMIT_S} s"
    if run.returncode:
        return f"exit {run.returncode}: {run.stderr.strip().splitlines()[-1][:90] if run.stderr.strip() else 'no message'}"
    return tuple(json.loads(run.stdout.splitlines()[-1]))


def megabytes_a_second(result: tuple[int, float, int] | str) -> float:
    return result[0] / 1e6 / result[1] if not isinstance(result, str) else math.nan


# ---- tables ----


def show_cases(cases: list[str], size: int, folder: Path):
    print(f"\nEncoding (MB/s, beside tiktoken) and training of {size / 1e6:g} MB")
    print(f"  {'':30} {'ours':>8} {'tiktoken':>9} {'ratio':>7} {'memory':>9}   {'train':>8} {'memory':>9}")
    for case in cases:
        ours, trained = run_job("encode", case, size, folder), run_job("train", case, size, folder)
        tiktoken_size, theirs = size, "not run"
        while isinstance(theirs, str) and tiktoken_size > size // 100:  # less and less until it survives
            theirs = run_job("tiktoken", case, tiktoken_size, folder)
            failure = theirs if isinstance(theirs, str) else None
            tiktoken_size //= 10
        speed, their_speed = megabytes_a_second(ours), megabytes_a_second(theirs)
        notes = [f"{name}: {result}" for name, result in (("ours", ours), ("train", trained)) if isinstance(result, str)]
        notes += [f"tiktoken: {failure}"] if failure else []
        if not isinstance(theirs, str) and theirs[0] < size // 3:
            notes.append(f"tiktoken on {theirs[0] / 1e6:g} MB")
        notes += ["SLOW"] if speed < their_speed / 2 else []
        memory = [result[2] / 1e6 if not isinstance(result, str) else math.nan for result in (ours, trained)]
        print(
            f"  {case:30} {speed:8.1f} {their_speed:9.2f} {speed / their_speed:7.1f} {memory[0]:6.0f} MB   "
            f"{megabytes_a_second(trained):8.1f} {memory[1]:6.0f} MB   {'; '.join(notes)}",
            flush=True,
        )


def show_growth(cases: list[str], sizes: list[int], folder: Path):
    """Shows that time over n log n stays the same where the text is one piece."""
    for work in ("encode", "train"):
        print(f"\nGrowth of {work}: seconds (ns for each byte and power of two) and memory")
        for case in cases:
            print(f"  {case}")
            for size in sizes:
                result = run_job(work, case, size, folder)
                if isinstance(result, str):
                    print(f"    {size / 1e6:8.1f} MB: {result}", flush=True)
                    break
                num_bytes, seconds, memory = result
                unit = seconds * 1e9 / num_bytes / math.log2(num_bytes)
                print(
                    f"    {num_bytes / 1e6:8.1f} MB: {seconds:8.3f} s ({unit:6.2f}), {memory / 1e6:6.0f} MB, "
                    f"{memory / num_bytes:.0f} bytes each",
                    flush=True,
                )


def show_scripts(files: list[str], size: int, folder: Path):
    """Runs tokenize_data.py on files that are no text, or one line."""
    print(f"\ntokenize_data.py on files of {size / 1e6:g} MB")
    path, output = folder / "file.txt", folder / "output"
    for name in files:
        run_job("write", name, size, folder)  # in a process of its own: what this one takes would count as the script's
        command = [
            sys.executable,
            str(ROOT / "tokenize_data.py"),
            f"--data_files={path}",
            "--vocab_size=4096",
            f"--tokens_dir={folder / 'tokens'}",
        ]
        start = time.perf_counter()
        with open(output, "wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        print(
            f"  {name}: exit {process.returncode}, {time.perf_counter() - start:.1f} s, "
            f"peak {usage.ru_maxrss * KIB / 1e6:.0f} MB"
        )
        lines = output.read_text("utf-8", "replace").replace("\r", "\n").splitlines()
        for line in [line for line in lines if line and "B/s" not in line and "?B" not in line][-5:]:
            print(f"    {line[:160]}", flush=True)


PARTS = ("cases", "growth", "scripts")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=10, help="of text for each case")
    parser.add_argument("--growth_megabytes", default="1,2,4,8,16,32,64,100", help="sizes for the growth of the time")
    parser.add_argument("--script_megabytes", type=float, default=100, help="of text for tokenize_data.py")
    parser.add_argument("--cases", default=";".join(CASES), help="some of the cases, with ; between them")
    parser.add_argument("--files", default=";".join(FILES), help="some of the files for tokenize_data.py, with ; between them")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        return do_job(arguments.job)
    from alilama import Tokenizer

    cases, parts = arguments.cases.split(";"), arguments.parts.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [make(200_000) for make in CASES.values()]
        Tokenizer.train_from_iterator(texts, VOCAB_SIZE).save(folder / "tokenizer.json")
        if "cases" in parts:
            show_cases(cases, int(arguments.megabytes * 1e6), folder)
        if "growth" in parts:
            sizes = [int(float(size) * 1e6) for size in arguments.growth_megabytes.split(",")]
            show_growth([case for case in cases if case in ONE_PIECE], sizes, folder)
        if "scripts" in parts:
            show_scripts(arguments.files.split(";"), int(arguments.script_megabytes * 1e6), folder)


if __name__ == "__main__":
    main()
