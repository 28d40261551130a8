"""Writes text with a trained model: python -m alilama.generate models/stories --prompt "Once upon a time" """

import codecs
import sys
from collections.abc import Iterator

import torch

from alilama.errors import ArgumentParser, UserError, one_line_errors
from alilama.model import Model, choose_device
from alilama.tokenizer import Tokenizer


def next_token_probabilities(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float) -> torch.Tensor:
    """Returns the distribution to sample from, (V,), given the logits of one position, (V,).

    The temperature divides the logits, 0 leaves only the most likely token. Then top_k keeps the k most likely tokens, and
    top_p the fewest most likely ones that together have at least that probability (Holtzman et al. 2020, arXiv:1904.09751).
    """
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), logits.numel()).float()
    logits = (logits.double() - logits.max()) / temperature  # at most 0, so that no temperature makes them overflow
    ordered, order = logits.sort(descending=True, stable=True)
    probabilities = ordered.softmax(0)
    before = probabilities.cumsum(0) - probabilities  # probability of all more likely tokens
    kept = before < top_p
    if top_k is not None:
        kept[top_k:] = False
    probabilities = torch.where(kept, probabilities, 0)
    return torch.zeros_like(probabilities).scatter(0, order, probabilities / probabilities.sum())


def check_sampling(max_new_tokens: int, temperature: float, top_k: int | None, top_p: float, seed: int | None):
    """Raises UserError for a setting out of range."""
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens = {max_new_tokens}: expected at least 1")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature = {temperature}: expected 0 (always the most likely token) or a number above")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k = {top_k}: expected at least 1, or None for all tokens")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p = {top_p}: expected above 0 and at most 1")
    if seed is not None and not -2**63 <= seed < 2**63:
        raise UserError(f"seed = {seed}: expected a number of at most 63 bits")


@torch.inference_mode()
def stream_ids(model: Model, ids: list[int], *, max_new_tokens: int = 256, temperature: float = 0.8, top_k: int | None = None,
               top_p: float = 1.0, seed: int | None = None, stop_id: int | None = None) -> Iterator[int]:
    """Yields the ids that follow `ids` (one or more), one by one, until `stop_id` or `max_new_tokens` of them.

    The same seed gives the same ids on the same device; without one they differ each time.
    """
    check_sampling(max_new_tokens, temperature, top_k, top_p, seed)
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    context = torch.tensor(ids, device=model.wte.weight.device)[None]  # (1, T)
    for _ in range(max_new_tokens):
        logits = model(context)[0, -1].float().cpu()  # (V,)
        probabilities = next_token_probabilities(logits, temperature, top_k, top_p)
        next_id = int(torch.multinomial(probabilities, 1, generator=generator))
        if next_id == stop_id:
            return
        yield next_id
        context = torch.cat([context, context.new_tensor([[next_id]])], dim=1)


def stream_text(model: Model, tokenizer: Tokenizer, prompt: str = "", **sampling) -> Iterator[str]:
    """Yields the text that follows `prompt` as it is made, whole characters only, until the end of the text.

    `sampling` goes to `stream_ids`. A prompt with a special token in it raises UserError.
    """
    ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in stream_ids(model, ids, stop_id=tokenizer.eot_id, **sampling):
        if text := decoder.decode(tokenizer.token_bytes(token)):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


def main(argv: list[str]):
    from alilama.checkpoint import load_model

    parser = ArgumentParser(prog="python -m alilama.generate", description="Writes text with a trained model.")
    parser.add_argument("model", help="folder of the model, such as models/stories")
    parser.add_argument("--prompt", default="", help="how the text begins; empty for a text from nothing")
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest text, in tokens [256]")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token, 1 as learned [0.8]")
    parser.add_argument("--top_k", type=int, help="sample from the k most likely tokens only")
    parser.add_argument("--top_p", type=float, default=1.0, help="sample from the most likely tokens of this probability [1]")
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")
    arguments = vars(parser.parse_args(argv))
    model, tokenizer = load_model(arguments.pop("model"), choose_device())
    texts = stream_text(model, tokenizer, **arguments)
    first = next(texts, "")  # a mistake in the arguments is said before anything is printed
    print(arguments["prompt"] + first, end="", flush=True)
    for text in texts:
        print(text, end="", flush=True)
    print()


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
