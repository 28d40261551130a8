import json

import pytest
import torch
from helpers import tiny_model
from safetensors.torch import load_file

from alilama.common.errors import UserError
from alilama.export.half import write_half
from alilama.model.folder import load_model, save_description, save_weights


def test_the_weights_are_rounded_to_16_bits_and_load_with_their_checksum(model_folder, tmp_path):
    write_half(model_folder, tmp_path / "half")
    found, whole = (load_file(folder / "model.safetensors") for folder in (tmp_path / "half", model_folder))
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name].half()) for name in whole)
    settings, before = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "half", model_folder))
    assert settings == before | {"torch_dtype": "float16"}
    (model, tokenizer), (other, its_tokenizer) = load_model(tmp_path / "half"), load_model(model_folder)
    assert tokenizer.sha256 == its_tokenizer.sha256
    ids = torch.arange(20)[None]
    torch.testing.assert_close(model(ids), other(ids), atol=0.05, rtol=0.05)
    content = bytearray((tmp_path / "half" / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "half" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_model(tmp_path / "half")


def test_what_is_told_of_a_model_goes_with_it_and_its_training_state_does_not(tokenizer, tmp_path):
    folder, model = tmp_path / "whole", tiny_model(tokenizer.vocab_size)
    save_description(folder, model.config, tokenizer)
    save_weights(folder, model)
    for name in ("README.md", "log.csv", "loss.png", "samples.jsonl", "training_state.pt"):
        (folder / name).write_text(name)
    write_half(folder, tmp_path / "half")
    assert (tmp_path / "half" / "README.md").read_text() == "README.md"
    names = {path.name for path in (tmp_path / "half").iterdir()}
    assert {"log.csv", "loss.png", "samples.jsonl"} < names and "training_state.pt" not in names


def test_weights_that_16_bits_do_not_hold_are_refused_and_nothing_is_written(tokenizer, tmp_path):
    model = tiny_model(tokenizer.vocab_size)
    with torch.no_grad():
        model.wte.weight[3, 2] = 7e4
    save_description(tmp_path / "whole", model.config, tokenizer)
    save_weights(tmp_path / "whole", model)
    with pytest.raises(UserError, match=r"wte.* has a weight of 70000, too large for float16"):
        write_half(tmp_path / "whole", tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_a_folder_that_exists_stays_as_it_is(tokenizer, tmp_path):
    model = tiny_model(tokenizer.vocab_size)
    save_description(tmp_path, model.config, tokenizer)
    save_weights(tmp_path, model)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists; remove it first, or name another folder"):
        write_half(tmp_path, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
