"""Model folders on the Hugging Face Hub: what Transformers and vLLM make of ours, and what comes back from there."""

import copy
import json
import logging
import shutil
import warnings

import pytest
import tokenizers
import torch
from helpers import tiny_model, write_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from alilama.common.errors import UserError
from alilama.data.tokenizer import Tokenizer
from alilama.model.attention import alibi_slopes
from alilama.model.folder import find_pretrained, load_model, save_description, save_weights
from alilama.model.model import Model
from alilama.writing.streams import stream_text

transformers = pytest.importorskip("transformers")

TEXT = "Once upon a time , Zoë 's  cat said: \"I'm 12!\"\n\n The end …"


def edit(path, **values):
    """Changes values of a config.json; a name with a dot is one within another."""
    content = json.loads(path.read_text())
    for name, value in values.items():
        *outer, inner = name.split(".")
        (content[outer[0]] if outer else content)[inner] = value
    path.write_text(json.dumps(content))


def assert_same_logits(ours: Model, theirs, vocab_size: int | None = None):
    ids = torch.randint(ours.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.eval()(ids).logits[:, :, :vocab_size].float()
        torch.testing.assert_close(ours(ids), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


# ---- there ----


def test_texts_begin_there_as_documents_do_here_and_come_back_as_they_were(tokenizer, model_folder):
    theirs = transformers.AutoTokenizer.from_pretrained(model_folder)
    assert theirs(TEXT)["input_ids"] == tokenizer.encode_document(TEXT)
    assert theirs("")["input_ids"] == [tokenizer.eot_id]
    assert theirs.encode(TEXT, add_special_tokens=False) == tokenizer.encode(TEXT)
    first, second = tokenizer.encode_document("the cat"), tokenizer.encode_document("a dog")
    assert theirs("the cat", "a dog")["input_ids"] == first + second
    assert theirs.decode(theirs(TEXT)["input_ids"], skip_special_tokens=True) == TEXT
    settings = json.loads((model_folder / "tokenizer_config.json").read_text())
    assert theirs(TEXT).keys() == {*settings["model_input_names"]} == {"input_ids", "attention_mask"}  # version 4 has others
    assert theirs.model_max_length == 256 and theirs.bos_token_id == theirs.eos_token_id == theirs.pad_token_id
    raw = tokenizers.Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    assert raw.encode(TEXT).ids == tokenizer.encode_document(TEXT)


def test_the_tokenizer_of_a_model_folder_is_the_one_of_its_tokens(tokenizer, model_folder, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_bytes() != (model_folder / "tokenizer.json").read_bytes()
    again = Tokenizer.load(model_folder / "tokenizer.json")
    assert again.sha256 == Tokenizer.load(tmp_path / "tokenizer.json").sha256 == tokenizer.sha256
    assert again.encode(TEXT) == tokenizer.encode(TEXT)


@pytest.fixture
def complaints(monkeypatch) -> list[str]:
    """What Transformers and Python warn of."""
    found = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
        found += [str(warning.message) for warning in caught]
    logging.getLogger("transformers").removeHandler(handler)


def test_a_pipeline_writes_what_we_write_far_beyond_the_trained_length(model_folder, complaints):
    model, tokenizer = load_model(model_folder)
    pipeline = transformers.pipeline("text-generation", model=str(model_folder))
    prompts = ["", "Once upon a time", "A"]
    ours = [prompt + "".join(stream_text(model, tokenizer, prompt, max_new_tokens=60, temperature=0)) for prompt in prompts]
    alone = [pipeline(prompt, do_sample=False, max_new_tokens=60)[0]["generated_text"] for prompt in prompts]
    together = pipeline(prompts, do_sample=False, max_new_tokens=60, batch_size=3)
    assert alone == ours == [answer["generated_text"] for (answer,) in together]
    assert len(pipeline("Once")[0]["generated_text"]) > 100  # sampled, by the settings of the folder
    assert not complaints


def test_prompts_of_different_lengths_go_on_together_as_they_do_alone(model_folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    theirs = transformers.AutoTokenizer.from_pretrained(model_folder)
    prompts = ["Once upon a time, Zoë", "The"]
    options = {"do_sample": False, "max_new_tokens": 10}
    together = theirs.batch_decode(model.generate(**theirs(prompts, return_tensors="pt", padding=True), **options))
    alone = [theirs.decode(model.generate(**theirs(prompt, return_tensors="pt"), **options)[0]) for prompt in prompts]
    assert [text.replace("<|endoftext|>", "") for text in together] == [text.replace("<|endoftext|>", "") for text in alone]


def test_a_story_by_the_pretrained_model_ends_in_a_pipeline_where_it_ends_here():
    model, tokenizer = load_model(find_pretrained())
    pipeline = transformers.pipeline("text-generation", model=str(find_pretrained()))
    story = pipeline("The dog", do_sample=False, max_new_tokens=350)[0]["generated_text"]
    assert story == "The dog" + "".join(stream_text(model, tokenizer, "The dog", max_new_tokens=350, temperature=0))
    assert 20 < tokenizer.count(story) < 340 and "<|" not in story


def test_a_folder_keeps_the_rules_of_vllms_loader(tokenizer, tmp_path):
    """What vllm/model_executor/models/mpt.py asserts, reads and loads, and the registry by which it is found."""
    save_description(tmp_path, tiny_model(tokenizer.vocab_size, d_model=48, num_heads=6).config, tokenizer)
    save_weights(tmp_path, tiny_model(tokenizer.vocab_size, d_model=48, num_heads=6))
    written = json.loads((tmp_path / "config.json").read_text())
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(config).__name__ == "MptConfig" and config.architectures == ["MptForCausalLM"]
    for attn_config in (written["attn_config"], vars(config.attn_config)):
        assert not attn_config["prefix_lm"] and attn_config["alibi"] and attn_config["alibi_bias_max"] == 8
        assert attn_config["clip_qkv"] is None and not attn_config["qk_ln"] and "kv_n_heads" not in attn_config
    for settings in (written, vars(config)):
        assert settings["embedding_fraction"] == 1.0 and settings["norm_type"] == "low_precision_layernorm"
        assert settings["tie_word_embeddings"] and settings["no_bias"] and settings["expansion_ratio"] == 4
        assert settings["max_seq_len"] == 256 and settings["d_model"] % settings["n_heads"] == 0
    matrices = ("norm_1", "attn.Wqkv", "attn.out_proj", "norm_2", "ffn.up_proj", "ffn.down_proj")
    names = {f"transformer.blocks.{i}.{name}.weight" for i in range(2) for name in matrices}
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == names | {"transformer.wte.weight", "transformer.norm_f.weight"}
    steps = 2 ** -(torch.arange(1, 9) * 8 / 8)  # its slopes for 6 heads: of 8, every second one first
    torch.testing.assert_close(alibi_slopes(6), torch.cat([steps[1::2], steps[::2]])[:6])


# ---- and back ----


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "40KB"}], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_model_that_was_trained_on_there_comes_back(dtype, options, model_folder, tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    ids = their_tokenizer(TEXT, return_tensors="pt")["input_ids"]
    model(ids, labels=ids).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.to(dtype).save_pretrained(tmp_path, **options)
    their_tokenizer.save_pretrained(tmp_path)
    assert (len(list(tmp_path.glob("model-*.safetensors"))) > 1) == bool(options)
    (before, tokenizer), (ours, again) = load_model(model_folder), load_model(tmp_path)
    assert ours.config == before.config and again.sha256 == tokenizer.sha256  # trained_seq_len too
    assert not torch.equal(ours.wte.weight, before.wte.weight)
    assert_same_logits(ours, model.float())


@pytest.fixture
def foreign(tokenizer, tmp_path):
    """Returns a folder with a random MPT model as Transformers saves it, and the model."""

    def make(vocab_size=tokenizer.vocab_size, **settings):
        shape = {"d_model": 48, "n_heads": 6, "n_layers": 2, "max_seq_len": 64, "initializer_range": 0.3}
        torch.manual_seed(5)
        model = transformers.MptForCausalLM(transformers.MptConfig(**shape | {"vocab_size": vocab_size} | settings))
        model.save_pretrained(tmp_path / "foreign")
        tokenizer.save(tmp_path / "foreign" / "tokenizer.json")
        return tmp_path / "foreign", model

    return make


def test_a_model_of_someone_else_loads_and_is_trained_at_the_length_that_it_names(foreign):
    folder, theirs = foreign()
    ours, _ = load_model(folder)
    assert (ours.config.max_seq_len, ours.config.hidden_dim, ours.config.dropout) == (64, 192, 0)
    assert_same_logits(ours, theirs)


def test_what_a_config_leaves_out_is_as_transformers_takes_it(foreign):
    """Version 4 does not save tie_word_embeddings, and older ones had fewer settings."""
    folder, theirs = foreign()
    content = json.loads((folder / "config.json").read_text())
    kept = {"model_type", "vocab_size", "d_model", "n_heads", "n_layers", "max_seq_len"}
    for attn_config in ({}, {"attn_config": None}, {"attn_config": {"alibi": True, "attn_pdrop": 0.1, "attn_impl": "triton"}}):
        (folder / "config.json").write_text(json.dumps({name: content[name] for name in kept} | attn_config))
        assert_same_logits(load_model(folder)[0], theirs)
    for name in kept:
        (folder / "config.json").write_text(json.dumps({other: content[other] for other in kept - {name}}))
        with pytest.raises(UserError, match=r"config\.json") as refused:
            load_model(folder)
        assert name in str(refused.value)


@pytest.mark.parametrize("eos_token_id", [None, 399, [399]])
def test_rows_of_the_embedding_without_a_token_are_left_out(eos_token_id, foreign, tokenizer):
    folder, theirs = foreign(vocab_size=448, eos_token_id=eos_token_id)
    ours, _ = load_model(folder)
    assert ours.config.vocab_size == tokenizer.vocab_size == 400
    assert_same_logits(ours, theirs, vocab_size=400)


@pytest.mark.parametrize(("vocab_size", "eos_token_id"), [(448, 398), (448, [398]), (399, None), (399, 399)])
def test_a_tokenizer_that_does_not_fit_is_not_taken_for_one_with_fewer_tokens(vocab_size, eos_token_id, foreign):
    folder, _ = foreign(vocab_size=vocab_size, eos_token_id=eos_token_id)
    with pytest.raises(UserError, match="do not belong to one model"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "gpt2"),
        ("expansion_ratio", 2),
        ("layer_norm_epsilon", 1e-6),
        ("norm_type", "rmsnorm"),
        ("no_bias", False),
        ("tie_word_embeddings", False),
        ("logit_scale", "inv_sqrt_d_model"),
        ("attn_config.alibi", False),
        ("attn_config.alibi_bias_max", 16),
        ("attn_config.attn_type", "multiquery_attention"),
        ("attn_config.clip_qkv", 6),
        ("attn_config.qk_ln", True),
        ("attn_config.softmax_scale", 0.1),
        ("attn_config.prefix_lm", True),
    ],
)
def test_a_model_of_another_formula_is_refused_by_the_name_of_the_setting(name, value, foreign):
    folder, _ = foreign()
    load_model(folder)
    edit(folder / "config.json", **{name: value})
    with pytest.raises(UserError, match=rf"config\.json.* {name} is {value!r}") as refused:
        load_model(folder)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["transformer.wpe.weight", "transformer.blocks.1.norm_1.bias", "transformer.blocks.0.attn.q_ln.weight"]
)
def test_weights_that_we_do_not_have_are_refused_by_name(name, foreign):
    folder, _ = foreign()
    save_file(load_file(folder / "model.safetensors") | {name: torch.zeros(48)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"foreign has {name.removeprefix('transformer.')} among its weights"):
        load_model(folder)


def test_an_output_projection_may_be_written_too_if_it_is_the_embedding(foreign):
    folder, theirs = foreign()
    weights = load_file(folder / "model.safetensors")
    head = {"lm_head.weight": weights["transformer.wte.weight"].clone()}
    save_file(weights | head, folder / "model.safetensors")
    assert_same_logits(load_model(folder)[0], theirs)
    save_file({name: weights[name] for name in weights if "wte" not in name} | head, folder / "model.safetensors")
    assert_same_logits(load_model(folder)[0], theirs)
    head["lm_head.weight"][3, 3] += 1
    save_file(weights | head, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"output projection, lm_head\.weight"):
        load_model(folder)


def test_pickled_weights_are_refused_with_what_to_do(foreign):
    folder, theirs = foreign()
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model-00001-of-00001.bin")
    with pytest.raises(
        UserError, match=r"pytorch_model-00001-of-00001\.bin is not read.*save_pretrained\('.*foreign'\)$"
    ) as refused:
        load_model(folder)
    assert len(str(refused.value).splitlines()) == 1


def test_a_tokenizer_of_gpt_neox_is_refused_with_the_reason(foreign):
    """As mosaicml/mpt-7b has it: composed characters, GPT-2's pattern, and tokens of white space beside the vocabulary."""
    folder, _ = foreign()
    content = json.loads((folder / "tokenizer.json").read_text())
    space = copy.deepcopy(content["added_tokens"][0]) | {"id": 400, "content": "  ", "special": False, "normalized": True}
    content |= {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "added_tokens": [*content["added_tokens"], space],
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer\.json: .* changes the text by a normalizer"):
        load_model(folder)


def test_a_folder_that_an_earlier_version_wrote_still_loads(model_folder, tmp_path):
    """alilama_2M as it was committed first: fewer settings, and nothing before a text."""
    folder = shutil.copytree(model_folder, tmp_path / "old")
    content = json.loads((folder / "config.json").read_text())
    for name in ("norm_type", "embedding_fraction", "learned_pos_emb", "logit_scale", "activation", "slope_rule"):
        del content[name]
    content["attn_config"] = {"alibi": True, "alibi_bias_max": 8, "attn_pdrop": 0}
    (folder / "config.json").write_text(json.dumps(content))
    old_tokenizer = json.loads((folder / "tokenizer.json").read_text()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(old_tokenizer))
    (old, its_tokenizer), (new, tokenizer) = load_model(folder), load_model(model_folder)
    assert old.config == new.config and its_tokenizer.sha256 == tokenizer.sha256


# ---- prompts and answers ----


@pytest.fixture(scope="module")
def asked(tokenizer, tmp_path_factory):
    """A folder of a model that answers."""
    return write_model(tmp_path_factory.mktemp("asked"), tokenizer.with_frame())


MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Zoë 🦙"},
    {"role": "user", "content": "\n Why? {{ bos_token }}"},
]


def test_a_chat_there_is_the_prompt_here(asked, model_folder):
    tokenizer, theirs = load_model(asked)[1], transformers.AutoTokenizer.from_pretrained(asked)
    for messages in (MESSAGES, MESSAGES[1:2], MESSAGES[:1]):
        prompt = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        found = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        assert found == tokenizer.encode(prompt, allowed_special="all") == tokenizer.encode_prompt(messages)
        document = theirs.apply_chat_template(messages, tokenize=False)
        assert document + "<|assistant|>" == prompt
    assert transformers.AutoTokenizer.from_pretrained(model_folder).chat_template is None


def test_an_answer_there_ends_where_it_does_here(asked):
    tokenizer, theirs = load_model(asked)[1], transformers.AutoModelForCausalLM.from_pretrained(asked)
    ids, end = torch.tensor([tokenizer.encode_prompt("Who?")]), tokenizer.special_tokens["<|end|>"]
    assert theirs.generation_config.eos_token_id == tokenizer.stop_ids == [tokenizer.eot_id, end]

    def end_after_four(written, scores):
        scores[:, end] += 1e4 * (written.shape[1] == ids.shape[1] + 4)
        return scores

    written = theirs.generate(ids, do_sample=False, max_new_tokens=12, logits_processor=[end_after_four])[0, ids.shape[1] :]
    assert len(written) == 5 and written[-1] == end


@pytest.mark.parametrize("ends", ["its eos", "both", "nothing", "another"])
def test_rows_of_the_embedding_that_others_add_are_left_out_whichever_end_they_name(ends, asked, tmp_path):
    (model, tokenizer), folder = load_model(asked), shutil.copytree(asked, tmp_path / "padded")
    weights, name = load_file(folder / "model.safetensors"), "transformer.wte.weight"
    weights[name] = torch.cat([weights[name], torch.zeros(12, weights[name].shape[1])])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    eos = {"its eos": tokenizer.eot_id, "both": tokenizer.stop_ids, "nothing": None, "another": [7]}[ends]
    edit(folder / "config.json", vocab_size=len(weights[name]), eos_token_id=eos)
    if ends == "another":
        with pytest.raises(UserError, match="do not belong to one model"):
            load_model(folder)
    else:
        assert torch.equal(load_model(folder)[0].wte.weight, model.wte.weight)
