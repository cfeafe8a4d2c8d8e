"""What each of two processes does: one step of training under each launcher, compared with one process alone."""

import copy
import json
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.experimental import implicit_replication
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import posenc
from posenc.frequencies import LearnedRates
from posenc.kernels.biased_attention import plan
from posenc.nn import Block, Transformer

DIM, HEADS, TOKENS, ROWS = 16, 4, 8, 4
OPTIONS: dict[str, dict[str, Any]] = {
    **{"learned": {"length": TOKENS}, "learned_grid": {"grid": (2, 4)}, "tupe": {"length": TOKENS}},
    **{"swin": {"window": (2, 4)}, "swin_v2": {"window": (2, 4), "width": 4}, "levit": {"window": (2, 4)}},
    **{"decomposed": {"window": (2, 4)}, "cope": {"length": 4}, "fire": {"width": 4}, "mrope": {"sections": (2, 0, 0)}},
    "fope": {"trained_length": TOKENS, "learned": True},
    **{"normalized": {"length": TOKENS}, "temperature": {"form": "log", "length": 4}},
}


def every_learner() -> dict[str, posenc.Encoding]:
    """Every encoding that learns something: of the catalogue, and of learned rates, and a composition."""
    every = {name: posenc.make(name, dim=DIM, num_heads=HEADS, **OPTIONS.get(name, {})) for name in posenc.names()}
    every |= {
        f"rope, {learned}": posenc.RoPE(head_dim=4, frequencies=LearnedRates(parameter=learned))
        for learned in ("rates", "log_scale")
    }
    every["learned, rope and t5"] = posenc.Compose(
        posenc.Learned(DIM, length=TOKENS), posenc.RoPE(head_dim=4), posenc.T5Bias(HEADS)
    )
    return {name: encoding for name, encoding in every.items() if any(True for _ in encoding.parameters())}


def model(encoding: posenc.Encoding) -> Transformer:
    """Two blocks that share a copy of the encoding, whose parameters are away from their start."""
    torch.manual_seed(0)
    made = Transformer(DIM, HEADS, 2, copy.deepcopy(encoding), causal=True, mlp_dim=DIM)
    for parameter in made.encoding.parameters():  # type: ignore[union-attr]
        nn.init.normal_(parameter, std=0.3)
    return made


def of_encodings(model: nn.Module) -> set[nn.Parameter]:
    return {p for part in model.modules() if isinstance(part, posenc.Encoding) for p in part.parameters()}


def x() -> Tensor:
    return torch.randn(ROWS, TOKENS, DIM, generator=torch.Generator().manual_seed(1))


def own_rows(mesh: DeviceMesh) -> Tensor:
    return x().chunk(mesh.size())[mesh.get_rank()]


def whole(value: Tensor | None) -> Tensor | None:
    return value.full_tensor() if isinstance(value, DTensor) else value


def by_rows(model: Transformer, mesh: DeviceMesh) -> None:
    parallel = DistributedDataParallel(model)  # which must live until the backward is over
    parallel(own_rows(mesh)).square().mean().backward()


def shard(model: Transformer, mesh: DeviceMesh) -> None:
    shared = of_encodings(model)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh, ignored_params=shared)
    fully_shard(model, mesh=mesh)


def sharded(model: Transformer, mesh: DeviceMesh) -> None:
    shard(model, mesh)
    model(own_rows(mesh)).square().mean().backward()


def sharded_on_meta(model: Transformer, mesh: DeviceMesh) -> None:
    """Made without weights, sharded, and then loaded, each parameter by the one name that it goes by."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    shard(model.to("meta"), mesh)
    model.to_empty(device="cpu")
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=False))
    model(own_rows(mesh)).square().mean().backward()


def sharded_and_made_again(model: Transformer, mesh: DeviceMesh) -> None:
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Block))
    sharded(model, mesh)


def sharded_in_blocks(model: Transformer, mesh: DeviceMesh) -> None:
    """As for long texts: blocks of queries, whose bias is made again in the backward."""
    limit, plan._SMALL = plan._SMALL, 0
    try:
        sharded(model, mesh)
    finally:
        plan._SMALL = limit


def by_heads(model: Transformer, mesh: DeviceMesh) -> None:
    for layer in model.layers:
        parallelize_module(
            layer,
            mesh,
            {
                "self_attn": PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Replicate()),
                **{f"self_attn.{name}_proj": ColwiseParallel(use_local_output=False) for name in "qkv"},
                "self_attn.o_proj": RowwiseParallel(),
                **{f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")},
                "mlp.down_proj": RowwiseParallel(),
            },
        )
    for part in model.encoding.parts:  # type: ignore[union-attr]
        if "embeddings" not in part.places:
            distribute_module(part, mesh)
    with implicit_replication():
        model(x()).square().mean().backward()


LAUNCHERS: dict[str, Callable[[Transformer, DeviceMesh], None]] = {
    "DDP": by_rows,
    "FSDP2": sharded,
    "FSDP2, activation checkpointing": sharded_and_made_again,
    "FSDP2, blocks": sharded_in_blocks,
    "FSDP2, loaded after the meta device": sharded_on_meta,
    "tensor parallel": by_heads,
}


def differences(launch: Callable[[Transformer, DeviceMesh], None], encoding: posenc.Encoding, mesh: DeviceMesh) -> str:
    """Which gradients are not those of one process that has all rows and heads; "" if there is no such one."""
    alone, launched = model(encoding), model(encoding)
    alone(x()).square().mean().backward()
    launch(launched, mesh)
    wrong = []
    for (name, expected), (_, got) in zip(alone.named_parameters(), launched.named_parameters(), strict=True):
        gradient = whole(got.grad)
        if gradient is None or not torch.allclose(gradient, expected.grad, rtol=1e-4, atol=1e-6):
            wrong.append(name)
    return ", ".join(wrong)


def distributed_tensors(mesh: DeviceMesh) -> None:
    """Rotations of DTensors work as they are; attention says what it needs."""
    q = torch.randn(2, HEADS, TOKENS, 4, generator=torch.Generator().manual_seed(2))
    positions = torch.arange(TOKENS) + 3
    for encoding in (posenc.RoPE(4), posenc.RoPE(4, rotary_dim=2), posenc.XPos(4), posenc.AxialRoPE(4)):
        for shard in (Shard(0), Shard(1), Replicate()):
            for where in (None, 3, positions, positions.expand(2, -1)):
                spread = distribute_tensor(q, mesh, [shard])
                got = encoding.on_queries_keys(spread, spread, where)
                for one, expected in zip(got, encoding.on_queries_keys(q, q, where), strict=True):
                    torch.testing.assert_close(whole(one), expected)
    spread = distribute_tensor(q, mesh, [Shard(1)])
    learned = posenc.RoPE(4, frequencies=LearnedRates())
    distribute_module(learned, mesh)
    refused: tuple[Callable[[], object], ...] = (
        lambda: posenc.attention(spread, spread, spread, posenc.ALiBi(HEADS)),
        lambda: posenc.ALiBi(HEADS).on_scores(spread @ spread.mT, None, None),
        lambda: posenc.Sinusoidal(4).on_embeddings(spread[:, 0]),
        lambda: learned.rotate(spread),
    )
    for call in refused:
        with pytest.raises(ValueError, match="implicit_replication"):
            call()


def run(rank: int, world: int, folder: str, names: Iterable[str]) -> None:
    """Join the other processes, do all of it, and write what went wrong to a file of this rank."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    wrong: dict[str, str] = {}
    encodings = every_learner()
    try:
        distributed_tensors(mesh)
        for name in names:
            for launcher, launch in LAUNCHERS.items():
                wrong[f"{name}, {launcher}"] = differences(launch, encodings[name], mesh)
    except BaseException:
        wrong["stopped"] = f"after {list(wrong)[-1:]}: {traceback.format_exc()}"
    (Path(folder) / f"{rank}.json").write_text(json.dumps(wrong))
    dist.destroy_process_group()
