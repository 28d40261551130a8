"""How well a model predicts a text: python -m alilama.evaluate models/stories --data valid.txt --context 128,256,512"""

from alilama.common.errors import begin_script

begin_script(__name__)

import argparse
import sys
from pathlib import Path

import numpy as np

from alilama.common.config import MAX_SIZE
from alilama.common.errors import ArgumentParser, UserError, one_line_errors
from alilama.common.files import check_picture_can_go
from alilama.common.progress import progress
from alilama.data.tokenizer import Tokenizer
from alilama.model.device import choose_device
from alilama.model.folder import PRETRAINED, find_pretrained, is_shipped, load_model
from alilama.training.card import add_evaluation
from alilama.training.scoring import count_bytes, encode_files, evaluate, learned_of
from alilama.views.pictures import plot_contexts, read_contexts, save_figure
from alilama.views.yardsticks import NGRAM_LENGTH, gzip_bits_per_byte, ngram_bits_per_byte, xz_bits_per_byte

WAYS = ("non-overlapping windows", "sliding windows")  # of scoring, each a line of the picture


def main(argv: list[str]):
    arguments = parse_arguments(argv)
    folder, stride = Path(arguments.model), arguments.stride
    model, tokenizer = load_model(folder, choose_device())
    trained = model.config.max_seq_len
    contexts = [trained] if arguments.context is None else parse_contexts(arguments.context)
    if stride is not None and not 1 <= stride <= contexts[0]:
        raise UserError(f"--stride {stride}: expected at least 1 and at most the shortest context, {contexts[0]}")
    picture = arguments.plot or (Path() if is_shipped(folder) else folder) / "evaluation.png"
    check_picture_can_go("--plot", picture)
    beside = {} if arguments.beside is None else read_contexts(arguments.beside)
    if taken := beside.keys() & {*WAYS}:
        raise UserError(f"--beside {arguments.beside}: {min(taken)!r} is a line of {folder} already; give it another name")
    ids = encode_files(tokenizer, arguments.data, arguments.tokens, "--data", arguments.text_column)

    said = []  # for the model's card

    def say(line: str):
        print(line)
        said.append(line)

    which = f"the first {len(ids):,} tokens: " if len(ids) == arguments.tokens else ""
    learned = ids[1:][learned_of(tokenizer, ids)[1:]]  # of prompts with answers only these
    say(f"{which}{len(learned):,} tokens to predict, {count_bytes(tokenizer, learned):,} bytes of text; loss in nats per token")
    say(f"{'non-overlapping windows':>44}{'windows sliding by ' + str(stride or 'an eighth'):>36}")
    say(f"{'context':>8}" + 2 * f"{'loss':>10}{'perplexity':>12}{'bits per byte':>14}")
    scores = []  # of each context, not overlapping and sliding
    for context in contexts:
        with progress(2 * len(learned), desc=f"context {context}", unit="tok", leave=False, unit_scale=True) as bar:
            scores.append(
                [
                    evaluate(model, tokenizer, ids, context, bar.update, stride=by)
                    for by in (None, stride or max(1, context // 8))
                ]
            )
        numbers = "".join(f"{score.loss:>10.4f}{score.perplexity:>12.2f}{score.bits_per_byte:>14.4f}" for score in scores[-1])
        note = "  trained at this length" * (context == trained) + "  the whole text" * (context >= len(ids) - 1)
        say(f"{context:>8}{numbers}{note}")
    best, context = min((sliding.bits_per_byte, context) for context, (_, sliding) in zip(contexts, scores, strict=True))
    say(f"{describe_yardsticks(tokenizer, np.append(ids[:1], learned))}; this model {best:.3f} (sliding, context {context})")

    lines = {
        name: {context: score.bits_per_byte for context, score in zip(contexts, way, strict=True)}
        for name, way in zip(WAYS, zip(*scores, strict=True), strict=True)
    }
    try:
        save_figure(plot_contexts(f"{folder.name}: bits per byte by context length", lines | beside, trained), picture)
    except (OSError, UserError) as error:
        raise UserError(f"the picture cannot be written ({error}); choose another place with --plot") from None
    print(f"picture: {picture}")
    if picture == folder / "evaluation.png":
        add_evaluation(folder, said)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m alilama.evaluate", description="How well a model predicts a text.")
    parser.add_argument("model", nargs="?", default=find_pretrained(), help=f"folder of the model [{PRETRAINED}]")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="text files, folders or patterns")
    parser.add_argument("--text_column", metavar="NAME", help="what holds the text in files of rows [as in TRAINCONFIG.py]")
    parser.add_argument("--tokens", type=int, metavar="N", help="read only the first N tokens [all]")
    parser.add_argument("--context", help="window lengths in tokens, such as 128,512 [the length it was trained at]")
    parser.add_argument(
        "--stride",
        type=int,
        metavar="TOKENS",
        help="how far sliding windows move on; the paper takes 1, which is slow [an eighth of each context]",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="where the picture goes [evaluation.png in the model's folder; for models that are part of the "
        "repository in the current one]",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE.csv",
        help="lines of other models for the picture, by the columns name, context and bits_per_byte, of the same text",
    )
    arguments = parser.parse_args(argv)
    if arguments.tokens is not None and arguments.tokens < 2:
        raise UserError(f"--tokens {arguments.tokens}: expected at least 2, for the first is not predicted")
    return arguments


def parse_contexts(text: str) -> list[int]:
    """Returns the window lengths that --context names, the shortest first."""
    try:
        contexts = sorted({int(length) for length in text.split(",")})
    except ValueError:
        contexts = [0]
    if contexts[0] < 1 or contexts[-1] >= MAX_SIZE:
        raise UserError(f"--context {text}: expected lengths from 1 to {MAX_SIZE - 1:,} with commas between, such as 128,512")
    return contexts


def describe_yardsticks(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """Says what simple means make of the text of all ids but the first, which a model is scored on."""
    text = tokenizer.decode_bytes(ids[1:][~np.isin(ids[1:], list(tokenizer.special_tokens.values()))])
    ngram = ngram_bits_per_byte(ids, tokenizer.vocab_size, len(text))
    return (
        f"yardsticks on the same text, adaptive: gzip -9 {gzip_bits_per_byte(text):.3f}, xz -9e "
        f"{xz_bits_per_byte(text):.3f}, a {NGRAM_LENGTH}-gram model of the tokens {ngram:.3f} bits per byte"
    )


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
