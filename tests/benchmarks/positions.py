"""Reads further than trained: our model beside the same one with learned positions, as figures and a picture.

    python tokenize_data.py --data_files=train.txt --val_files=valid.txt
    python tests/benchmarks/positions.py [--shape 64x4x8] [--train_tokens 6e6] [--contexts 64,128,256] [--out FILE]

Both are trained as train.py does, at the same length, on the same tokens of tokens_dir in the same order. In place of the
linear biases the other one adds a learned vector to the embedding of each token, by its position, as GPT-2 does. Positions
beyond the trained length have vectors too, but training never reached them: they are as they were drawn. The validation
tokens, one document behind the other, are read in windows that do not overlap. The picture lies beside the figures.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import torch
from learning import ROOT, make_steps
from torch import nn

from alilama.common.config import Config, load_config
from alilama.data.batches import TrainingWindows
from alilama.data.tokenizer import Tokenizer
from alilama.data.tokens import TokenFiles, load_token_files
from alilama.model.device import choose_device
from alilama.model.model import Model, ModelConfig
from alilama.training.optim import learning_rate_at, make_optimizers
from alilama.training.scoring import evaluate
from alilama.training.trainer import Trainer, choose_precision
from alilama.views.pictures import plot_contexts, read_contexts, save_figure

POSITION_STD = 0.02  # of the vectors before training, as in GPT-2


class LearnedPositions(Model):
    """The model without biases (slopes of 0), and a vector for each of `positions` added to the embeddings."""

    def __init__(self, config: ModelConfig, positions: int):
        super().__init__(config)
        self.slopes.zero_()
        self.wpe = nn.Embedding(positions, config.d_model)
        nn.init.normal_(self.wpe.weight, std=POSITION_STD)
        self.wte.register_forward_hook(lambda wte, ids, x: x + self.wpe.weight[: x.shape[1]])  # (B, T, C)


def train(model: Model, config: Config, files: TokenFiles):
    """Trains a model as train.py does; vectors of positions are not decayed, so that untrained ones stay as they are."""
    precision = choose_precision(model.wte.weight.device.type, config.precision)
    optimizers = make_optimizers(model, config, precision)
    if isinstance(model, LearnedPositions):
        of_embedding = optimizers[0].param_groups[0]
        optimizers[0].add_param_group({**of_embedding, "params": [model.wpe.weight], "weight_decay": 0.0})
    trainer = Trainer(model.train(), optimizers, config, precision, on_message=print)
    batches = TrainingWindows(files, config.max_seq_len, config.batch_size, config.seed)
    steps = round(config.train_tokens / (config.batch_size * config.max_seq_len))
    trainer.prepare(torch.from_numpy(batches.batch(0)))
    seconds = make_steps(
        steps, lambda step: trainer(torch.from_numpy(batches.batch(step)), learning_rate_at(step, steps, config))
    )
    print(f"{type(model).__name__}: {model.num_parameters():,} parameters, {steps:,} steps in {seconds:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", default="64x4x8", help="d_model x blocks x heads [64x4x8]")
    parser.add_argument("--train_tokens", type=float, default=6e6, help="tokens each is trained on [6e6]")
    parser.add_argument("--contexts", default="64,128,256,512,1024,2048", help="tokens of a window [64,128,...,2048]")
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="other settings of TRAINCONFIG.py")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "positions.csv", help="[docs/positions.csv]")
    arguments = parser.parse_args()
    contexts = [int(context) for context in arguments.contexts.split(",")]
    config = load_config(ROOT / "TRAINCONFIG.py", [f"--{setting}" for setting in arguments.settings], "")
    d_model, blocks, num_heads = map(int, arguments.shape.split("x"))
    shape = {"d_model": d_model, "blocks": blocks, "num_heads": num_heads, "hidden_dim": None}
    config = replace(config, **shape, epochs=None, train_tokens=int(arguments.train_tokens))
    tokenizer = Tokenizer.load(Path(config.tokens_dir) / "tokenizer.json")
    files = load_token_files(Path(config.tokens_dir), tokenizer)
    model_config, device = ModelConfig.of(config, tokenizer.vocab_size), choose_device()
    with open(arguments.out, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "context", "bits_per_byte"])
        for name, make in {
            "linear biases (ALiBi)": lambda: Model(model_config),
            "learned positions": lambda: LearnedPositions(model_config, max(contexts)),
        }.items():
            torch.manual_seed(config.seed)
            model = make().to(device)
            train(model, config, files)
            for context in contexts:
                score = evaluate(model.eval(), tokenizer, files.val_ids(None), context)
                rows.writerow([name, context, f"{score.bits_per_byte:.4f}"])
                print(f"{name}, context {context}: {score.bits_per_byte:.4f} bits per byte", flush=True)
    title = f"trained at {config.max_seq_len}, read at up to {max(contexts):,}"
    save_figure(plot_contexts(title, read_contexts(arguments.out), config.max_seq_len), arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
