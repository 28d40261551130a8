"""Compares stories: python tests/benchmarks/samples.py MODEL_FOLDER [--nanogpt FOLDER --weights FILE] [--data FILE]

Our model, nanoGPT's (with weights that tests/benchmarks/learning.py saved, and the tokenizer of ours) and the people who wrote
the stories of a text file, by figures instead of impressions. Every model continues the same prompts with the same number of
samples, at the same temperature and length. Over the words of the continuations, lower case, without punctuation:

distinct-n    n-grams that differ, as a share of all n-grams (Li et al. 2016, arXiv:1510.03055); of as many words for everybody
repeated-4    4-grams that were in the same story before, as a share of its 4-grams (Welleck et al. 2020, arXiv:1908.04319)
ended         share of the stories that reached <|endoftext|> within the length
"""

import argparse
import random
import re

import torch
from safetensors.torch import load_model as load_weights
from training import load_nanogpt

from alilama import generate_batch, load_model
from alilama.data.tokenizer import Tokenizer
from alilama.model.model import ModelConfig
from alilama.training.scoring import encode_files

PROMPTS = [
    "Once upon a time",
    "One day, a little girl named Lily",
    "There was a big dog",
    "Tom and his mom went to the park",
    "It was a sunny day",
    "The old man lived in a small house",
    '"Look!" said Sam.',
    "A bird sat in a tree",
    "Mia wanted to bake a cake",
    "In the forest there was a fox",
]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def distinct(stories: list[list[str]], n: int, most_words: int) -> float:
    """Returns the share of n-grams that differ within the first stories that have together `most_words` words."""
    grams, words = [], 0
    for story in stories:
        story = story[: most_words - words]
        words += len(story)
        grams += [tuple(story[i : i + n]) for i in range(len(story) - n + 1)]
    return len(set(grams)) / len(grams)


def repeated(stories: list[list[str]], n: int) -> float:
    """Returns the share of a story's n-grams that were in it before, over all stories."""
    grams = [[tuple(story[i : i + n]) for i in range(len(story) - n + 1)] for story in stories]
    return 1 - sum(len(set(each)) for each in grams) / sum(len(each) for each in grams)


def our_stories(arguments: argparse.Namespace, model, tokenizer: Tokenizer) -> list[list[int]]:
    prompts = [tokenizer.encode_document(prompt) for prompt in PROMPTS for _ in range(arguments.samples)]
    return generate_batch(
        model,
        prompts,
        max_new_tokens=arguments.tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        stop_ids=[tokenizer.eot_id],
    )


@torch.inference_mode()
def nanogpt_stories(arguments: argparse.Namespace, config: ModelConfig, tokenizer: Tokenizer) -> list[list[int]]:
    model = load_nanogpt(arguments.nanogpt, config).eval()
    load_weights(model, arguments.weights)
    torch.manual_seed(arguments.seed)
    stories = []
    for prompt in PROMPTS:
        start = torch.tensor([tokenizer.encode_document(prompt)] * arguments.samples)
        for row in model.generate(start, arguments.tokens, temperature=arguments.temperature).tolist():
            row = row[start.shape[1] :]
            stories.append(row[: row.index(tokenizer.eot_id)] if tokenizer.eot_id in row else row)
    return stories


def real_stories(arguments: argparse.Namespace, tokenizer: Tokenizer) -> list[list[int]]:
    """As many stories of a file, without as much of their beginnings as a prompt is long, and no longer than samples."""
    stories = []
    for id in encode_files(tokenizer, [arguments.data]).tolist():
        if id == tokenizer.eot_id:
            stories.append([])
        else:
            stories[-1].append(id)
    random.Random(arguments.seed).shuffle(stories)
    return [story[6 : 6 + arguments.tokens] for story in stories[: len(PROMPTS) * arguments.samples]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="folder of our model")
    parser.add_argument("--nanogpt", metavar="FOLDER", help="folder with nanoGPT's model.py")
    parser.add_argument("--weights", metavar="FILE", help="what learning.py saved")
    parser.add_argument("--data", metavar="FILE", help="a text file with stories by people")
    parser.add_argument("--samples", type=int, default=10, help="samples for each of the prompts [10]")
    parser.add_argument("--tokens", type=int, default=256, help="longest sample [256]")
    parser.add_argument("--temperature", type=float, default=0.8, help="[0.8]")
    parser.add_argument("--seed", type=int, default=1, help="[1]")
    arguments = parser.parse_args()
    model, tokenizer = load_model(arguments.model)
    stories = {arguments.model: our_stories(arguments, model, tokenizer)}
    if arguments.weights:
        stories["nanoGPT"] = nanogpt_stories(arguments, model.config, tokenizer)
    if arguments.data:
        stories[arguments.data] = real_stories(arguments, tokenizer)
    words = {who: [words_of(tokenizer.decode(story)) for story in its] for who, its in stories.items()}
    fewest = min(sum(map(len, each)) for each in words.values())
    print(
        f"{len(PROMPTS)} prompts x {arguments.samples} samples of at most {arguments.tokens} tokens, temperature "
        f"{arguments.temperature}; distinct n-grams of the first {fewest:,} words"
    )
    print(f"{'':<28} {'distinct-1':>10} {'distinct-2':>10} {'distinct-3':>10} {'repeated-4':>10} {'ended':>7} {'words':>6}")
    for who, its in words.items():
        ended = sum(len(story) < arguments.tokens for story in stories[who]) / len(its)
        shares = " ".join(f"{share:>10.3f}" for share in [distinct(its, n, fewest) for n in (1, 2, 3)] + [repeated(its, 4)])
        print(f"{who[-28:]:<28} {shares} {ended:>7.2f} {sum(map(len, its)) / len(its):>6.0f}")


if __name__ == "__main__":
    main()
