"""Model folders: what is saved comes back, and what does not fit is refused."""

import json
import math
import os
import random
import shutil
from dataclasses import dataclass

import pytest
import torch
from helpers import tiny_model, truncate
from safetensors.torch import load_file, save_file

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.model import folder as folders
from alilama.model.folder import MPT_SETTINGS, is_mpt, load_model, save_description, save_weights
from alilama.model.model import ARCHITECTURE, ModelConfig, block_weights, weight_shapes


@pytest.mark.parametrize("shape", [{}, {"num_heads": 8, "d_model": 48, "blocks": 3}, {"hidden_dim": 50}, {"dropout": 0.3}])
def test_a_saved_model_comes_back_with_the_same_logits_shape_and_tokenizer(shape, tokenizer, tmp_path):
    model = tiny_model(tokenizer.vocab_size, seed=7, **shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    save_description(tmp_path / "new" / "folder", model.config, tokenizer)
    save_weights(tmp_path / "new" / "folder", model)
    loaded, its_tokenizer = load_model(tmp_path / "new" / "folder")
    ids = torch.arange(40)[None]
    assert torch.equal(loaded(ids), model(ids))
    assert loaded.config == model.config and not loaded.training
    assert its_tokenizer.sha256 == tokenizer.sha256


def test_every_flipped_bit_of_the_weights_is_noticed_or_changes_nothing(folder):
    path, rng = folder / "model.safetensors", random.Random(1)
    content, expected, harmless = path.read_bytes(), load_file(path), 0
    size = 8 + int.from_bytes(content[:8], "little")
    for place in [size, len(content) - 1, *(rng.randrange(size, len(content)) for _ in range(50)), *range(0, size, 11)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            weights = load_model(folder)[0].state_dict()
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            continue
        harmless += 1  # the name of the checksum, or of the format
        assert all(torch.equal(weights[name.removeprefix("transformer.")], tensor) for name, tensor in expected.items())
        assert place < size
    assert harmless < 10


def test_weights_of_others_have_no_checksum_and_the_same_weights_are_the_same_bytes(folder, tokenizer):
    path = folder / "model.safetensors"
    content, model = path.read_bytes(), load_model(folder)[0]
    for _ in range(5):
        save_weights(folder, model)
        assert path.read_bytes() == content
    save_file(load_file(path), path, metadata={"format": "pt"})
    assert b"alilama_sha256" not in path.read_bytes() and b"alilama_sha256" in content
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in load_model(folder)[0].state_dict().items())


def test_the_folder_holds_what_transformers_expects_and_nothing_half_written(folder, tokenizer):
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "mpt" and config["architectures"] == ["MptForCausalLM"]
    assert config["trained_seq_len"] == 16 and config["max_seq_len"] > 16
    assert config["bos_token_id"] == config["eos_token_id"] == tokenizer.eot_id
    weights = load_file(folder / "model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert sum(weight.numel() for weight in weights.values()) == tiny_model(tokenizer.vocab_size).num_parameters()


@pytest.mark.parametrize("hidden_dim", [127, 129])
def test_a_model_that_mpt_cannot_express_does_not_say_it_is_one(hidden_dim, tokenizer, tmp_path):
    save_description(tmp_path, tiny_model(tokenizer.vocab_size, hidden_dim=hidden_dim).config, tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] != "mpt" and "MptForCausalLM" not in config["architectures"]


def test_a_model_in_half_precision_is_saved_in_float32(tokenizer, tmp_path):
    save_weights(tmp_path, tiny_model(tokenizer.vocab_size).to(torch.bfloat16))
    assert {weight.dtype for weight in load_file(tmp_path / "model.safetensors").values()} == {torch.float32}


def change_config(**values):
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def change_weights(change):
    def rewrite(path):
        weights = load_file(path)
        change(weights)
        save_file(weights, path)

    return rewrite


GPT2_CONFIG = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}
DAMAGE = {
    "missing weights": ("model.safetensors", os.remove),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b"")),
    "truncated weights": ("model.safetensors", truncate),
    "text as weights": ("model.safetensors", lambda path: path.write_text("Once upon a time")),
    "pickle as weights": ("model.safetensors", lambda path: torch.save({"a": torch.zeros(1)}, path)),
    "a weight missing": ("model.safetensors", change_weights(lambda weights: weights.pop("transformer.norm_f.weight"))),
    "weights too large": ("model.safetensors", change_weights(lambda w: [w[name].fill_(1e30) for name in w])),
    "whole numbers as weights": (
        "model.safetensors",
        change_weights(lambda w: w.update({name: tensor.int() for name, tensor in w.items()})),
    ),
    "weights in 8 bits": (
        "model.safetensors",
        change_weights(
            lambda w: w.update({name: torch.full_like(tensor, math.nan).to(torch.float8_e4m3fn) for name, tensor in w.items()})
        ),
    ),
    "a weight too many": ("model.safetensors", change_weights(lambda weights: weights.update(extra=torch.zeros(1)))),
    "another shape": ("model.safetensors", change_weights(lambda w: w.update({"transformer.norm_f.weight": torch.ones(31)}))),
    "missing config": ("config.json", os.remove),
    "truncated config": ("config.json", truncate),
    "empty config": ("config.json", lambda path: path.write_bytes(b"")),
    "list as config": ("config.json", lambda path: path.write_text("[]")),
    "binary config": ("config.json", lambda path: path.write_bytes(b"\xff\xfe")),
    "another architecture": ("config.json", lambda path: path.write_text(json.dumps(GPT2_CONFIG))),
    "no layers": ("config.json", change_config(n_layers=0)),
    "no heads": ("config.json", change_config(n_heads=0)),
    "other number of layers": ("config.json", change_config(n_layers=3)),
    "heads that do not divide": ("config.json", change_config(n_heads=5)),
    "true as size": ("config.json", change_config(n_heads=True)),
    "text as size": ("config.json", change_config(d_model="32")),
    "text as dropout": ("config.json", change_config(resid_pdrop="a little")),
    "impossible dropout": ("config.json", change_config(resid_pdrop=1.0)),
    "attention without biases": ("config.json", change_config(attn_config=MPT_SETTINGS["attn_config"] | {"alibi": False})),
    "flatter biases": ("config.json", change_config(attn_config=MPT_SETTINGS["attn_config"] | {"alibi_bias_max": 4})),
    "another epsilon": ("config.json", change_config(layer_norm_epsilon=0.5)),
    "biases": ("config.json", change_config(no_bias=False)),
    "two embeddings": ("config.json", change_config(tie_word_embeddings=False)),
    "other vocabulary": ("config.json", change_config(vocab_size=500)),
    "missing tokenizer": ("tokenizer.json", os.remove),
    "truncated tokenizer": ("tokenizer.json", truncate),
    "empty tokenizer": ("tokenizer.json", lambda path: path.write_bytes(b"")),
    "foreign tokenizer": ("tokenizer.json", lambda path: path.write_text('{"model": {"type": "WordPiece"}}')),
    "binary tokenizer": ("tokenizer.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_line_that_names_it(damage, folder):
    name, do = DAMAGE[damage]
    do(folder / name)
    with pytest.raises(UserError) as refused:
        load_model(folder)
    assert len(str(refused.value).splitlines()) == 1
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize("num_merges", [142, 144])
def test_a_tokenizer_of_another_model_is_refused(num_merges, folder, tokenizer):
    assert tokenizer.vocab_size == 400
    merges = [*tokenizer.merges, (0, 1)][:num_merges]
    Tokenizer(merges).save(folder / "tokenizer.json")
    with pytest.raises(UserError, match="do not belong to one model"):
        load_model(folder)


@pytest.mark.parametrize("where", ["missing", "empty"])
def test_a_folder_without_a_model_is_refused(where, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is not a model folder.*train\.py"):
        load_model(tmp_path / where)


class WritesAFile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_model_folder_with_code_in_it_is_refused_and_not_run(folder, tmp_path):
    torch.save({"a": WritesAFile(tmp_path / "was_run")}, folder / "model.safetensors")
    with pytest.raises(UserError):
        load_model(folder)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[3] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="not finite numbers"):
        load_model(folder)


def test_a_config_of_another_number_of_blocks_is_refused_before_anything_is_built(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layers": 10_000}))
    with pytest.raises(UserError, match="10000 blocks"):
        load_model(folder)


# ---- folders that Transformers saved, and other architectures ----


@pytest.fixture(scope="module")
def theirs(model_folder):
    """The model as Transformers reads it."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(model_folder)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda index: index.write_text("{"), "index.json is damaged"),
        (lambda index: index.write_text("[]"), "index.json is damaged"),
        (lambda index: index.write_text('{"weight_map": {"a": 5}}'), "index.json is damaged"),
        (lambda index: index.write_text('{"weight_map": {"a": "../a.safetensors"}}'), "outside of its folder"),
        (lambda index: index.write_text('{"weight_map": {"a": ""}}'), "outside of its folder"),
        (lambda index: index.write_text('{"weight_map": {"a": ".."}}'), "outside of its folder"),
        (lambda index: index.write_text(r'{"weight_map": {"a": "\ud800"}}'), "index.json is damaged"),
        (lambda index: next(iter(index.parent.glob("model-*"))).unlink(), "is missing or damaged"),
    ],
)
def test_a_damaged_index_of_shards_is_one_line(theirs, model_folder, damage, message, tmp_path):
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    shutil.copy(model_folder / "tokenizer.json", tmp_path)
    damage(tmp_path / "model.safetensors.index.json")
    with pytest.raises(UserError, match=message) as refused:
        load_model(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["slope_rule", "activation"])
def test_a_folder_of_another_formula_is_refused_and_one_that_names_none_is_mpt(name, folder):
    content = json.loads((folder / "config.json").read_text())
    assert content.pop(name) == ARCHITECTURE[name]
    (folder / "config.json").write_text(json.dumps(content))
    load_model(folder)
    (folder / "config.json").write_text(json.dumps(content | {name: "another"}))
    with pytest.raises(UserError, match=f"another architecture: {name} is 'another', expected '{ARCHITECTURE[name]}'"):
        load_model(folder)


def test_a_model_of_another_formula_is_not_called_mpt(monkeypatch):
    config = tiny_model(50).config
    assert is_mpt(config)
    with monkeypatch.context() as patch:
        patch.setitem(folders.ARCHITECTURE, "slope_rule", "another")
        assert not is_mpt(config)
    with monkeypatch.context() as patch:
        patch.setattr(folders, "block_weights", lambda config: block_weights(config) | {"ffn.gate_proj": (4, 4)})
        assert not is_mpt(config)

    @dataclass
    class WithRotation(ModelConfig):
        rotation: float = 0.0

    @dataclass
    class WithRule(ModelConfig):
        rule: str = "new"  # a new default does not change what MPT is

    monkeypatch.setitem(folders.MPT_ARCHITECTURE, "rule", "old")
    assert is_mpt(WithRule(**vars(config), rule="old")) and not is_mpt(WithRule(**vars(config)))
    assert is_mpt(WithRotation(**vars(config))) and not is_mpt(WithRotation(**vars(config), rotation=0.5))


def test_a_new_field_may_be_called_as_a_setting_of_mpt_is(tokenizer, tmp_path, monkeypatch):
    @dataclass
    class WithNorm(ModelConfig):
        norm_type: str = "layer"

    monkeypatch.setattr(folders, "ModelConfig", WithNorm)
    for norm_type in ("layer", "rms"):
        config = WithNorm(**vars(tiny_model(tokenizer.vocab_size).config), norm_type=norm_type)
        save_description(tmp_path, config, tokenizer)
        assert folders.load_shape(tmp_path) == config


def test_the_table_of_weights_is_that_of_the_model():
    model = tiny_model(50, blocks=3, hidden_dim=40)
    assert weight_shapes(model.config) == {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def test_a_folder_remembers_how_prompts_are_framed_and_one_of_text_alone_says_nothing(folder, tokenizer, tmp_path):
    framed = tokenizer.with_frame()
    model = tiny_model(framed.vocab_size)
    save_description(tmp_path / "framed", model.config, framed)
    save_weights(tmp_path / "framed", model)
    settings, plain = (json.loads((path / "tokenizer_config.json").read_text()) for path in (tmp_path / "framed", folder))
    assert settings.pop("chat_template").startswith("{{ bos_token }}{% for message in messages %}") and settings == plain
    generation, plain = (json.loads((path / "generation_config.json").read_text()) for path in (tmp_path / "framed", folder))
    assert generation["eos_token_id"] == framed.stop_ids and plain["eos_token_id"] == tokenizer.eot_id
    config = json.loads((tmp_path / "framed" / "config.json").read_text())
    assert config["eos_token_id"] == config["bos_token_id"] == framed.eot_id
    loaded, its_tokenizer = load_model(tmp_path / "framed")
    assert its_tokenizer.encode_prompt("Who?") == framed.encode_prompt("Who?") and its_tokenizer.stop_ids == framed.stop_ids
    assert torch.equal(loaded(torch.tensor([[1, 2, 3]])), model(torch.tensor([[1, 2, 3]])))
