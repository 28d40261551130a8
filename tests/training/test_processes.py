"""Several processes that torchrun starts learn together."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT

from alilama.common.errors import UserError
from alilama.training import trainer
from alilama.training.trainer import join_processes

SHARES = """
import sys
from pathlib import Path
import torch
from alilama.common.config import Config, read_settings
from alilama.model.model import Model, ModelConfig
from alilama.training.optim import make_optimizers
from alilama.training.trainer import Trainer, join_processes, leave_processes

rank, world_size = join_processes("cpu")
torch.manual_seed(0)
model = Model(ModelConfig(50, 32, 2, 4, 128, 16))
config = Config(**read_settings(Path(sys.argv[1]))[0] | {"batch_size": 8, "max_seq_len": 16, "compile_model": False})
precision = getattr(torch, sys.argv[3])
optimizers = make_optimizers(model, config, precision)
processes, may_ignore = {"rank": rank, "world_size": world_size}, sys.argv[4] == "masked"
trainer = Trainer(model, optimizers, config, precision, on_message=print, may_ignore=may_ignore, **processes)
loss_of, seen = trainer.step.loss_of, []
trainer.step.loss_of = lambda ids, targets: seen.append(ids) or loss_of(ids, targets)
generator = torch.Generator().manual_seed(0)
losses = []
for i in range(4):
    windows = torch.randint(50, (8, 17), generator=generator)
    is_told = torch.rand(8, 17, generator=generator) < torch.linspace(0, 1, 8)[:, None]  # less of the second half
    trainer(torch.where(is_told, ~windows, windows) if may_ignore else windows, 0.01)
    losses.append(trainer.step.read_losses()[0])
torch.save((losses, model.state_dict(), seen[0]), f"{sys.argv[2]}/{world_size}-{rank}.pt")
leave_processes()
"""


@pytest.mark.parametrize(
    ("precision", "tolerance", "tokens"), [("float32", 2e-4, "all"), ("bfloat16", 0.02, "all"), ("float32", 2e-4, "masked")]
)
def test_two_processes_learn_what_one_does(precision, tolerance, tokens, tmp_path):
    (tmp_path / "shares.py").write_text(SHARES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command in ([sys.executable], torchrun):
        result = subprocess.run(
            [*command, "shares.py", ROOT / "TRAINCONFIG.py", tmp_path, precision, tokens],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=200,
            encoding="utf-8",
        )
        assert result.returncode == 0, result.stderr
    results = [torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")]
    (losses, one, batch), (losses_0, first, share_0), (losses_1, second, share_1) = results
    assert len(share_0) == len(share_1) == 4 and torch.equal(torch.cat([share_0, share_1]), batch)
    assert losses_0 == losses_1 == pytest.approx(losses, rel=tolerance / 20)
    for name in one:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], one[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("device", "has_nccl", "backend"), [("cuda", True, "nccl"), ("cuda", False, "gloo"), ("cpu", True, "gloo")]
)
def test_gpus_talk_through_nccl_where_there_is_one_and_else_through_gloo(device, has_nccl, backend, monkeypatch):
    begun = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    for name, result in (("is_torchelastic_launched", True), ("is_nccl_available", has_nccl)):
        monkeypatch.setattr(trainer.dist, name, lambda result=result: result)
    monkeypatch.setattr(trainer.dist, "init_process_group", lambda backend, timeout: begun.append(backend))
    monkeypatch.setattr(trainer.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(trainer.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", begun.append)
    assert join_processes(device) == (1, 2)
    assert begun == [1] * (device == "cuda") + [backend]


def test_an_apple_gpu_is_not_shared_by_processes(monkeypatch):
    monkeypatch.setattr(trainer.dist, "is_torchelastic_launched", lambda: True)
    with pytest.raises(UserError, match=r"start train\.py with python"):
        join_processes("mps")
