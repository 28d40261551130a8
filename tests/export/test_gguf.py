"""GGUF files say what the model folder says, and what llama.cpp would not run as it is here is refused."""

import json
import random
import re

import numpy as np
import pytest
import regex
import torch
from helpers import tiny_model
from oracles import PATTERN_STRINGS
from safetensors.torch import load_file, save_file

from alilama.common.errors import UserError
from alilama.data.formats import BYTE_LEVEL_ALPHABET, Vocabulary
from alilama.data.frames import CHAT_TEMPLATE
from alilama.data.tokenizer import Tokenizer
from alilama.model import folder as model_folder
from alilama.model.folder import save_description, save_weights

gguf = pytest.importorskip("gguf")
from alilama.export import gguf as export  # noqa: E402, it needs the package
from alilama.export.gguf import name_tokens, write_gguf  # noqa: E402

EOT = "<|endoftext|>"
NAMES = {  # as llama.cpp's src/llama-arch.cpp has them
    "transformer.wte.weight": "token_embd.weight",
    "transformer.norm_f.weight": "output_norm.weight",
    "norm_1.weight": "attn_norm.weight",
    "attn.Wqkv.weight": "attn_qkv.weight",
    "attn.out_proj.weight": "attn_output.weight",
    "norm_2.weight": "ffn_norm.weight",
    "ffn.up_proj.weight": "ffn_up.weight",
    "ffn.down_proj.weight": "ffn_down.weight",
}


def save_model(folder, tokenizer, **shape):
    model = tiny_model(tokenizer.vocab_size, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + torch.rand_like(parameter))
    save_description(folder, model.config, tokenizer)
    save_weights(folder, model)
    return folder


def read(file) -> tuple[dict, dict]:
    """Returns the metadata and the tensors of a file."""
    reader = gguf.GGUFReader(file)
    return {name: field.contents() for name, field in reader.fields.items()}, {each.name: each for each in reader.tensors}


def rewrite_tokenizer(folder, change):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# ---- the model ----


@pytest.mark.parametrize("precision, rounding", [("f32", 0), ("f16", 2**-11), ("q8_0", 1 / 254 + 2**-11)])
def test_every_weight_is_there_by_its_name_and_as_precise_as_asked_for(precision, rounding, tokenizer, tmp_path):
    folder = save_model(tmp_path / "twelve", tokenizer, d_model=96, num_heads=12)
    write_gguf(folder, tmp_path / "a.gguf", precision)
    _, tensors = read(tmp_path / "a.gguf")
    weights = load_file(folder / "model.safetensors")
    assert len(tensors) == len(weights) == 2 + 2 * 6
    for name, weight in weights.items():
        block, _, rest = name.removeprefix("transformer.blocks.").partition(".")
        tensor = tensors[f"blk.{block}.{NAMES[rest]}" if name.startswith("transformer.blocks.") else NAMES[name]]
        assert tensor.tensor_type.name == ("F32" if weight.ndim == 1 else precision.upper())
        assert tensor.shape.tolist() == list(weight.shape)[::-1]
        found = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        # q8_0: 255 steps across the largest of 32 weights, and the step itself in 16 bits
        largest = weight.reshape(-1, 32).abs().amax(1, keepdim=True) if precision == "q8_0" else weight.reshape(-1, 1).abs()
        allowed = (largest * rounding).expand(-1, weight.numel() // len(largest)).reshape(weight.shape)
        assert (np.abs(found - weight.numpy()) <= allowed.numpy() * (weight.ndim == 2) + 1e-7 * (rounding > 0)).all(), name
        assert tensor.data_offset % 32 == 0


def test_the_description_is_that_of_the_config(tokenizer, tmp_path):
    folder = save_model(tmp_path / "stories", tokenizer, d_model=48, num_heads=3, blocks=3, max_seq_len=20)
    write_gguf(folder, tmp_path / "a.gguf", "f16")
    found, _ = read(tmp_path / "a.gguf")
    expected = {
        "general.architecture": "mpt",
        "general.name": "stories",
        "general.file_type": 1,
        "mpt.context_length": json.loads((folder / "config.json").read_text())["max_seq_len"],
        "mpt.embedding_length": 48,
        "mpt.block_count": 3,
        "mpt.feed_forward_length": 192,
        "mpt.attention.head_count": 3,
        "mpt.attention.max_alibi_bias": 8.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "dbrx",
        "tokenizer.ggml.bos_token_id": 399,
        "tokenizer.ggml.eos_token_id": 399,
        "tokenizer.ggml.padding_token_id": 399,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["mpt.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert not any("license" in name for name in found)


# ---- the tokenizer ----


def shuffle_ids(content):
    ids = list(range(400))
    random.Random(3).shuffle(ids)
    content["model"]["vocab"] = {name: ids[id] for name, id in content["model"]["vocab"].items()}
    content["added_tokens"][0]["id"] = content["model"]["vocab"][EOT] = ids[399]


def leave_gaps(content):
    content["model"]["vocab"][EOT] = content["added_tokens"][0]["id"] = 405


def take_whole_pieces(content):
    """As Llama 3's: a token is taken before any merge, and here one that no merge makes."""
    content["model"]["ignore_merges"] = True
    content["model"]["vocab"] |= {"Ġunreachable": 399, EOT: 400}
    content["added_tokens"][0]["id"] = 400


def encode_by_the_file(fields: dict, pattern: str, text: str) -> list[int]:
    """Merges the names of tokens, as llama.cpp does."""
    ids = {name: id for id, name in enumerate(fields["tokenizer.ggml.tokens"])}
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(fields["tokenizer.ggml.merges"])}
    found = []
    for piece in regex.findall(pattern, text):
        names = [BYTE_LEVEL_ALPHABET[byte] for byte in piece.encode()]
        if fields["tokenizer.ggml.pre"] == "llama-bpe" and "".join(names) in ids:
            names = ["".join(names)]
        while pairs := [pair for pair in zip(names, names[1:]) if pair in ranks]:  # noqa: B905, RUF007
            first = min(pairs, key=ranks.get)
            place = next(i for i in range(len(names)) if (names[i], *names[i + 1 : i + 2]) == first)
            names[place : place + 2] = ["".join(first)]
        found += [ids[name] for name in names]
    return found


@pytest.mark.parametrize(
    "pattern, change, expected",
    [
        ("gpt4", None, "dbrx"),
        ("gpt2", None, "gpt-2"),
        ("qwen35", None, "qwen35"),
        ("gpt4", shuffle_ids, "dbrx"),
        ("gpt2", leave_gaps, "gpt-2"),
        ("gpt4", take_whole_pieces, "llama-bpe"),
    ],
)
def test_the_tokens_and_merges_of_the_file_give_the_ids_of_the_tokenizer(pattern, change, expected, text, tmp_path):
    Tokenizer.train_from_iterator([text], 400, pattern=pattern).save(tmp_path / "tokenizer.json")
    if change:
        rewrite_tokenizer(tmp_path, change)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    save_model(tmp_path, tokenizer)
    write_gguf(tmp_path, tmp_path / "a.gguf", "f16")
    fields, _ = read(tmp_path / "a.gguf")
    assert fields["tokenizer.ggml.pre"] == expected
    for sample in (text[:3000], "an unreachable word", "'LL don't\r\n\n  x\t\ty 12345 🦙 नमस्ते Zoë\u00a0€"):
        assert encode_by_the_file(fields, PATTERN_STRINGS[pattern], sample) == tokenizer.encode_ordinary(sample)
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(set(tokens)) == len(tokens) == len(kinds) == tokenizer.vocab_size
    assert tokens[tokenizer.eot_id] == EOT and fields["tokenizer.ggml.bos_token_id"] == tokenizer.eot_id
    empty = range(399, 405) if change is leave_gaps else []
    special = {tokenizer.eot_id: gguf.TokenType.CONTROL, **dict.fromkeys(empty, gguf.TokenType.UNUSED)}
    assert kinds == [special.get(id, gguf.TokenType.NORMAL) for id in range(len(kinds))]


def test_bytes_alone_are_a_tokenizer_whose_only_merge_meets_no_text(tmp_path):
    folder = save_model(tmp_path, Tokenizer([]))
    write_gguf(folder, tmp_path / "a.gguf", "f32")
    fields, _ = read(tmp_path / "a.gguf")
    assert encode_by_the_file(fields, PATTERN_STRINGS["gpt4"], EOT) == list(EOT.encode())
    assert len(fields["tokenizer.ggml.merges"]) == 1


# ---- refusals ----


def make_weights_large(folder):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.blocks.0.attn.Wqkv.weight"][0, 0] = 70_000
    save_file(weights, folder / "model.safetensors")


def take_whole_pieces_by(pattern, special_token):
    def change(folder):
        Tokenizer([], special_tokens=[EOT, special_token], pattern=pattern).save(folder / "tokenizer.json")
        rewrite_tokenizer(folder, lambda content: content["model"].update(ignore_merges=True))

    return change


REFUSED = {
    "a pattern of one's own": ({"pattern": r"\S+|\s+"}, None, "f16", r"tokenizer.json cuts text by .* with gpt4 or gpt2"),
    "pieces before merges, by gpt2": ({}, take_whole_pieces_by("gpt2", "<|a|>"), "f16", "ignore_merges"),
    "a special token that is a piece": ({}, take_whole_pieces_by("gpt4", "hello"), "f16", "special token 'hello'"),
    "a narrow feed-forward": ({"hidden_dim": 100}, None, "f16", "hidden_dim = 100, and .* takes 4 . d_model = 128"),
    "heads of width 1": ({"d_model": 4}, None, "f16", "4 heads of width 1"),
    "rows that no block fills": ({"d_model": 48}, None, "q8_0", "d_model = 48.*multiple of 32"),
    "weights beyond float16": ({}, make_weights_large, "f16", "blocks.0.attn.Wqkv.weight.*too large for f16, .*; export f32"),
    "weights beyond q8_0": ({}, make_weights_large, "q8_0", "too large for q8_0"),
    "a precision that is none": ({}, None, "q4_0", "'q4_0': expected one of f32, f16, q8_0"),
    "no model": ({}, lambda folder: (folder / "config.json").unlink(), "f16", "no config.json"),
}


@pytest.mark.filterwarnings("ignore:.*may cut text in another way")
@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_would_not_run_as_it_is_here_is_refused_and_nothing_is_written(case, tmp_path):
    shape, change, precision, message = REFUSED[case]
    tokenizer = Tokenizer([], special_tokens=[EOT, "<|a|>"], pattern=shape.pop("pattern", "gpt4"))
    folder = save_model(tmp_path / "model", tokenizer, **shape)
    if change:
        change(folder)
    with pytest.raises(UserError, match=message) as refused:
        write_gguf(folder, tmp_path / "a.gguf", precision)
    assert len(str(refused.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_formulas_are_refused(tmp_path, monkeypatch):
    folder = save_model(tmp_path / "model", Tokenizer([], special_tokens=[EOT]))
    monkeypatch.setattr(model_folder, "has_mpt_formulas", lambda config: False)
    with pytest.raises(UserError, match=r"other formulas or weights than MPT, as which llama\.cpp would run it"):
        write_gguf(folder, tmp_path / "a.gguf", "f16")


def test_more_blocks_than_llama_cpp_runs_are_refused(tmp_path):
    config = tiny_model(257, d_model=8, num_heads=1).config
    config.blocks = 513
    with pytest.raises(UserError, match=r"513 blocks.*at most 512"):
        export.check_shape(tmp_path, config, "f16")


# ---- the files ----


def test_a_disk_that_is_full_leaves_the_files_that_were_there_and_is_named(folder, tmp_path):
    resource = pytest.importorskip("resource")
    write_gguf(folder, tmp_path / "a.gguf", "q8_0")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("a.*")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))  # the weights alone are 150 kB
    try:
        with pytest.raises(OSError, match=r"File too large: '.*a\.gguf'"):
            write_gguf(folder, tmp_path / "a.gguf", "f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("a.*")} == before and len(before) == 2


def test_the_modelfile_names_the_file_and_takes_tokens_as_generate_does(folder, tmp_path):
    write_gguf(folder, tmp_path / "my stories.gguf")
    lines = (tmp_path / "my stories.gguf.Modelfile").read_text().splitlines()
    settings = {tuple(line.split(" ", 2)[:2]): line.split(" ", 2)[2] for line in lines if line.startswith("PARAMETER")}
    assert lines[0] == "FROM ./my stories.gguf"
    assert lines[1] == 'TEMPLATE """{{ .Prompt }}"""'
    assert {name: value for (_, name), value in settings.items()} == {
        "temperature": "0.8",
        "top_k": "0",
        "top_p": "1.0",
        "min_p": "0.0",
        "repeat_penalty": "1.0",
        "stop": EOT,
    }


def test_a_modelfile_that_somebody_changed_stays(folder, tmp_path):
    write_gguf(folder, tmp_path / "a.gguf")
    (tmp_path / "a.gguf.Modelfile").write_text("FROM ./a.gguf\nSYSTEM mine\n")
    write_gguf(folder, tmp_path / "a.gguf", "f32")
    assert "SYSTEM mine" in (tmp_path / "a.gguf.Modelfile").read_text()


@pytest.mark.parametrize("name", ['a"b.gguf', "a\nSYSTEM x.gguf", "a\r.gguf"])
def test_a_name_that_would_be_more_than_a_name_in_a_modelfile_is_refused(name, folder, tmp_path):
    with pytest.raises(UserError, match="a name that a Modelfile can hold"):
        write_gguf(folder, tmp_path / name)
    assert not list(tmp_path.glob("*.gguf*"))


def test_a_special_token_is_not_called_as_a_gap_is():
    vocabulary = Vocabulary([b"a", b"", b"[unused 1]"], [0] * 256, [], [])
    names, _ = name_tokens(vocabulary, {"[unused 1]": 2})
    assert names == ["a", "[unused 1]]", "[unused 1]"]


def test_a_model_of_prompts_and_answers_has_its_template_and_its_end_everywhere(tokenizer, tmp_path):
    framed = tokenizer.with_frame()
    write_gguf(save_model(tmp_path / "plain", tokenizer), tmp_path / "plain.gguf")
    write_gguf(save_model(tmp_path / "framed", framed), tmp_path / "framed.gguf")
    plain, found = read(tmp_path / "plain.gguf")[0], read(tmp_path / "framed.gguf")[0]
    keys = {"tokenizer.chat_template": CHAT_TEMPLATE, "tokenizer.ggml.eot_token_id": framed.special_tokens["<|end|>"]}
    assert {name: value for name, value in found.items() if name in keys} == keys and not keys.keys() & plain.keys()
    assert found["tokenizer.ggml.eos_token_id"] == found["tokenizer.ggml.bos_token_id"] == framed.eot_id
    tokens, kinds = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert {tokens[id]: kinds[id] for id in framed.special_tokens.values()} == dict.fromkeys(
        framed.special_tokens, 3
    )  # control
    lines = (tmp_path / "framed.gguf.Modelfile").read_text().splitlines()
    assert "PARAMETER stop <|end|>" in lines
    [template] = [line.removeprefix('TEMPLATE """').removesuffix('"""') for line in lines if line.startswith("TEMPLATE")]
    before, system, turn = re.fullmatch(r"(.*)\{\{ if .System \}\}(.*)\{\{ end \}\}(.*)", template).groups()
    turn = turn.removesuffix("{{ .Response }}<|end|>").replace("{{ .Prompt }}", "Who?")
    assert not before and [framed.eot_id, *framed.encode(turn, allowed_special="all")] == framed.encode_prompt("Who?")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    prompt = system.replace("{{ .System }}", "Be brief.") + turn
    assert [framed.eot_id, *framed.encode(prompt, allowed_special="all")] == framed.encode_prompt(
        messages
    )  # bos is added there
    assert 'TEMPLATE """{{ .Prompt }}"""' in (tmp_path / "plain.gguf.Modelfile").read_text()
