"""Measures what `minutes` chooses: python tests/benchmarks/minutes.py --data train.txt --val valid.txt --folder NEW

For texts of several sizes, the beginnings of --data, and several times: what was chosen, how long train.py took from its start
to its end, and the bits per byte on all of --val of the best weights, beside two runs of the shape that is usual without
`minutes`: one that ends where the usual settings end it, and one that takes the same time. All as a user would do it, with
tokenize_data.py and train.py. Nothing else may run on the machine.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from alilama.common.config import USUAL, USUAL_SHAPE
from alilama.data.formats import END_OF_TEXT
from alilama.data.tokens import load_token_files
from alilama.model.folder import load_model
from alilama.training.log import read_log
from alilama.training.resume import load_state
from alilama.training.scoring import evaluate

ROOT = Path(__file__).resolve().parents[2]
USUAL_SETTINGS = {**USUAL_SHAPE, **{name: value for name, value in USUAL.items() if name != "epochs"}}


def run(script: str, *options: str) -> float:
    """Runs a script of ours and returns the seconds it took."""
    started = time.perf_counter()
    subprocess.run([sys.executable, ROOT / script, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def write_beginning(data: Path, megabytes: float, path: Path):
    """Writes the documents in the first megabytes of a file."""
    text = data.read_bytes()[: round(megabytes * 1e6)]
    path.write_bytes(text[: text.rfind(END_OF_TEXT.encode())])


def train(tokens: Path, name: str, *options: str) -> tuple[float, float, dict]:
    """Trains a model; returns the seconds, its bits per byte on all validation tokens, and its settings and last log row."""
    seconds = run("train.py", f"--tokens_dir={tokens}", f"--models_dir={tokens.parent}", f"--model_name={name}", *options)
    folder = tokens.parent / name
    model, tokenizer = load_model(folder)
    score = evaluate(model, tokenizer, load_token_files(tokens, tokenizer).val_ids(None), model.config.max_seq_len)
    return seconds, score.bits_per_byte, load_state(folder)["config"] | read_log(folder / "log.csv")[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="text to train on the beginnings of")
    parser.add_argument("--val", required=True, metavar="FILE", help="text to validate on")
    parser.add_argument("--minutes", default="1,5,30", help="the times [1,5,30]")
    parser.add_argument("--megabytes", default="0.1,1,14", help="the sizes of the text [0.1,1,14]")
    parser.add_argument("--folder", type=Path, required=True, help="where token files and models go; must not exist")
    arguments = parser.parse_args()
    arguments.folder.mkdir()
    usual_settings = [f"--{name}={value}" for name, value in USUAL_SETTINGS.items()]
    print("| text | minutes | chosen | epochs | seconds | bits per byte | usual settings | usual shape, same time |")
    print("|---|---|---|---|---|---|---|---|")
    for megabytes in map(float, arguments.megabytes.split(",")):
        folder = arguments.folder / f"{megabytes:g}"
        folder.mkdir()
        text, tokens = folder / "text.txt", folder / "tokens"
        write_beginning(arguments.data, megabytes, text)
        run("tokenize_data.py", f"--data_files={text}", f"--val_files={arguments.val}", f"--tokens_dir={tokens}")
        usual_seconds, usual, _ = train(tokens, "usual")
        for minutes in arguments.minutes.split(","):
            seconds, bits, chosen = train(tokens, f"chosen{minutes}", f"--minutes={minutes}")
            _, fixed, _ = train(tokens, f"fixed{minutes}", f"--minutes={minutes}", *usual_settings)
            print(
                f"| {megabytes:g} MB | {minutes} | {chosen['d_model']} x {chosen['blocks']}, batch {chosen['batch_size']}, "
                f"dropout {chosen['dropout']:g} | {chosen['epoch']:.1f} | {seconds:.0f} | **{bits:.3f}** | "
                f"{usual:.3f} ({usual_seconds:.0f} s) | {fixed:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
