"""Who runs in which case. Peers are imported, never rewritten; one that is not installed is left out and named."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import posenc

HEADS, KV_HEADS, HEAD_DIM, OFFSET = 32, 8, 128, 5

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One thing to measure: sizes, dtype, and which contestants do comparable work."""

    name: str
    tokens: int
    dtype: torch.dtype
    mode: str  # "decode", "decode, module", "in place", "out of place", "backward", "variants"
    device: str = "cpu"

    @property
    def bytes(self) -> int:
        """What a rotation must move at least: q and k read once and written once."""
        return 2 * (HEADS + KV_HEADS) * self.tokens * HEAD_DIM * self.dtype.itemsize


@dataclass
class Contestant:
    """A call and what it should compute: ``check`` gives (output, input, pairing, rotary_dim) for the gate."""

    call: Call
    ours: bool = False
    roof: bool = False
    check: Callable[[], list[tuple[Tensor, Tensor, str, int]]] | None = None
    note: str = ""


@dataclass
class Bench:
    """The tensors of a case and its contestants by name."""

    case: Case
    q: Tensor = field(init=False)
    k: Tensor = field(init=False)
    contestants: dict[str, Contestant] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        case = self.case
        self.q = torch.randn(1, HEADS, case.tokens, HEAD_DIM, generator=generator).to(case.dtype).to(case.device)
        self.k = torch.randn(1, KV_HEADS, case.tokens, HEAD_DIM, generator=generator).to(case.dtype).to(case.device)
        self.positions = torch.arange(OFFSET, OFFSET + case.tokens, device=case.device)
        MODES[case.mode](self)

    def add(self, name: str, call: Call, **options: Any) -> None:
        self.contestants[name] = Contestant(call, **options)

    def outputs(self, call: Call, pairing: str = "half", rotary_dim: int = HEAD_DIM) -> Any:
        """A check of a call that returns q and k."""
        return lambda: [(y, x, pairing, rotary_dim) for y, x in zip(call(), (self.q, self.k), strict=True)]

    def tables(self, rotary_dim: int = HEAD_DIM) -> tuple[Tensor, Tensor]:
        inv_freq = torch.from_numpy(posenc.Geometric().inv_freq(rotary_dim)).to(self.case.device)
        angle = torch.arange(OFFSET + self.case.tokens, device=self.case.device)[:, None].double() * inv_freq
        return angle.cos().float(), angle.sin().float()

    def operator(self, *, in_place: bool, pairing: str = "half", rotary_dim: int = HEAD_DIM) -> Call:
        """The bare operator of the dispatcher, below autograd, as RoPE calls it."""
        cos, sin = self.tables(rotary_dim)
        options = (None, OFFSET, 0, 2, pairing == "interleaved", False)
        from posenc.kernels.rotate import choosing, op

        choosing.level() if self.case.device == "cpu" else None  # builds the kernel, or says nothing without a compiler
        function = op.compiled_ if in_place else op.compiled
        q, k = (self.q.clone(), self.k.clone()) if in_place else (self.q, self.k)
        return lambda: function(q, k, cos, sin, *options)

    def in_place_check(self, pairing: str = "half", rotary_dim: int = HEAD_DIM) -> Any:
        def check() -> list[tuple[Tensor, Tensor, str, int]]:
            cos, sin = self.tables(rotary_dim)
            q, k = self.q.clone(), self.k.clone()
            torch.ops.posenc.rotate_(q, k, cos, sin, None, OFFSET, 0, 2, pairing == "interleaved", False)
            return [(q, self.q, pairing, rotary_dim), (k, self.k, pairing, rotary_dim)]

        return check


def _copies(bench: Bench, *, roof: str) -> None:
    q, k = bench.q.clone(), bench.k.clone()
    bench.add("copy in place", lambda: (q.copy_(bench.q), k.copy_(bench.k)), roof=roof == "copy in place")
    bench.add("clone", lambda: (bench.q.clone(), bench.k.clone()), roof=roof == "clone")


def _transformers(bench: Bench, *, compiled: bool = True) -> None:
    if importlib.util.find_spec("transformers") is None:
        bench.absent["transformers"] = "not installed"
        return
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    cos, sin = (t[OFFSET:].repeat(1, 2)[None].to(bench.case.dtype) for t in bench.tables())

    def eager() -> Any:
        return apply_rotary_pos_emb(bench.q, bench.k, cos, sin)

    bench.add("transformers", eager, check=bench.outputs(eager))
    if compiled:
        function = torch.compile(apply_rotary_pos_emb)

        def fused() -> Any:
            return function(bench.q, bench.k, cos, sin)

        bench.add("transformers, compiled", fused, check=bench.outputs(fused))


def _rotary_embedding_torch(bench: Bench) -> None:
    if importlib.util.find_spec("rotary_embedding_torch") is None:
        bench.absent["rotary-embedding-torch"] = "not installed"
        return
    from rotary_embedding_torch import RotaryEmbedding

    rope = RotaryEmbedding(HEAD_DIM, use_xpos=False).to(bench.case.device)

    def call() -> Any:
        return rope.rotate_queries_or_keys(bench.q, offset=OFFSET), rope.rotate_queries_or_keys(bench.k, offset=OFFSET)

    bench.add("rotary-embedding-torch", call, check=bench.outputs(call, "interleaved"))


def _x_transformers(bench: Bench) -> None:
    if importlib.util.find_spec("x_transformers") is None:
        bench.absent["x-transformers"] = "not installed"
        return
    from x_transformers.x_transformers import RotaryEmbedding, apply_rotary_pos_emb

    freqs, _ = RotaryEmbedding(HEAD_DIM).to(bench.case.device)(bench.positions)

    def call() -> Any:
        return apply_rotary_pos_emb(bench.q, freqs), apply_rotary_pos_emb(bench.k, freqs)

    bench.add("x-transformers", call, check=bench.outputs(call, "interleaved"))


def _decode(bench: Bench) -> None:
    _copies(bench, roof="copy in place")
    bench.add("posenc, operator in place", bench.operator(in_place=True), ours=True, check=bench.in_place_check())
    call = bench.operator(in_place=False)
    bench.add(OPERATOR, call, ours=True, check=bench.outputs(call))
    _transformers(bench, compiled=False)
    _rotary_embedding_torch(bench)
    _x_transformers(bench)


def _decode_module(bench: Bench) -> None:
    """Python included, and a new position in every call, as in decoding: the tables are made or found each time."""
    from itertools import count

    _copies(bench, roof="copy in place")
    rope = posenc.RoPE(head_dim=HEAD_DIM)
    number, tensors = count(), [torch.tensor([[i]]) for i in range(4096)]
    operator = bench.operator(in_place=False)
    bench.add(
        OPERATOR,
        lambda: (tensors[next(number) % 4096], operator())[1],  # it pays for a new position too, and reads none
        ours=True,
        check=bench.outputs(operator),
    )
    ours = bench.outputs(lambda: rope.on_queries_keys(bench.q, bench.k, OFFSET))
    bench.add(
        "RoPE.on_queries_keys, int",
        lambda: rope.on_queries_keys(bench.q, bench.k, next(number) % 4096),
        ours=True,
        check=ours,
    )
    ids = bench.outputs(lambda: rope.on_queries_keys(bench.q, bench.k, bench.positions[None]))
    bench.add(
        "RoPE.on_queries_keys, tensor",
        lambda: rope.on_queries_keys(bench.q, bench.k, tensors[next(number) % 4096]),
        ours=True,
        check=ids,
    )
    q, k = bench.q.clone(), bench.k.clone()
    bench.add("RoPE.on_queries_keys_, int", lambda: rope.on_queries_keys_(q, k, next(number) % 4096), ours=True)
    if importlib.util.find_spec("transformers") is None:
        bench.absent["transformers"] = "not installed"
        return
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    module = LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=HEADS * HEAD_DIM, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS)
    )

    def theirs(positions: Tensor) -> Any:
        return apply_rotary_pos_emb(bench.q, bench.k, *module(bench.q, positions))

    bench.add(
        "transformers, module and function",
        lambda: theirs(tensors[next(number) % 4096]),
        check=bench.outputs(lambda: theirs(bench.positions[None])),
    )


def _in_place(bench: Bench) -> None:
    _copies(bench, roof="copy in place")
    bench.add("posenc, in place", bench.operator(in_place=True), ours=True, check=bench.in_place_check())
    _transformers(bench, compiled=False)
    if bench.case.device == "cuda":
        GPU_PEERS["in place"](bench)


def _out_of_place(bench: Bench) -> None:
    _copies(bench, roof="clone")
    call = bench.operator(in_place=False)
    bench.add("posenc, out of place", call, ours=True, check=bench.outputs(call))
    _transformers(bench)
    _rotary_embedding_torch(bench)
    _x_transformers(bench)
    if bench.case.device == "cuda":
        GPU_PEERS["out of place"](bench)


def _backward(bench: Bench) -> None:
    _copies(bench, roof="clone")
    rope = posenc.RoPE(head_dim=HEAD_DIM)
    q, k = bench.q.clone().requires_grad_(), bench.k.clone().requires_grad_()
    gradients = torch.randn_like(bench.q), torch.randn_like(bench.k)

    def forward() -> Any:
        with torch.enable_grad():
            return rope.on_queries_keys(q, k, OFFSET)

    outputs = forward()

    def backward() -> Any:
        return torch.autograd.grad(outputs, (q, k), gradients, retain_graph=True)

    bench.add("posenc, forward", forward, ours=True, roof=False, check=bench.outputs(forward))
    bench.add("posenc, backward", backward, ours=True)


def _variants(bench: Bench) -> None:
    _copies(bench, roof="copy in place")
    bench.add("posenc, plain", bench.operator(in_place=True), ours=True, check=bench.in_place_check())
    bench.add(
        "posenc, interleaved",
        bench.operator(in_place=True, pairing="interleaved"),
        ours=True,
        check=bench.in_place_check("interleaved"),
    )
    half = HEAD_DIM // 2
    partial = bench.operator(in_place=True, rotary_dim=half)
    bench.add("posenc, partial", partial, ours=True, check=bench.in_place_check(rotary_dim=half))
    plain = bench.q, bench.k
    bench.q, bench.k = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in plain)
    cos, sin = bench.tables()
    q, k = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in plain)
    from posenc.kernels.rotate import op

    bench.add("posenc, transposed", lambda: op.compiled_(q, k, cos, sin, None, OFFSET, 0, 2, False, False), ours=True)
    bench.q, bench.k = plain


def _liger(bench: Bench) -> None:
    """In place, and so where q and k lie as (batch, seq, heads, head_dim); others it would copy first."""
    if importlib.util.find_spec("liger_kernel") is None:
        bench.absent["Liger"] = "not installed"
        return
    from liger_kernel.ops.rope import LigerRopeFunction

    cos, sin = (t[OFFSET:].repeat(1, 2)[None].to(bench.case.dtype) for t in bench.tables())

    def copies() -> list[Tensor]:
        return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (bench.q, bench.k)]

    def rotate(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k, *_ = LigerRopeFunction.apply(q, k, cos, sin)  # some versions give cos and sin back too
        return q, k

    q, k = copies()
    bench.add("Liger, in place", lambda: rotate(q, k), check=bench.outputs(lambda: rotate(*copies())))


def _flash_attention(bench: Bench) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        bench.absent["flash-attention"] = "not installed"
        return
    from flash_attn.layers.rotary import apply_rotary_emb

    cos, sin = (t[OFFSET:].to(bench.case.dtype) for t in bench.tables())
    q, k = (x.transpose(1, 2).contiguous() for x in (bench.q, bench.k))

    def call() -> Any:
        return tuple(apply_rotary_emb(x, cos, sin).transpose(1, 2) for x in (q, k))

    bench.add("flash-attention", call, check=bench.outputs(call))


GPU_PEERS = {"in place": _liger, "out of place": _flash_attention}
MODES: dict[str, Callable[[Bench], None]] = {
    "decode": _decode,
    "decode, module": _decode_module,
    "in place": _in_place,
    "out of place": _out_of_place,
    "backward": _backward,
    "variants": _variants,
}

CPU_CASES = (
    Case("decode", 1, torch.float32, "decode"),
    Case("decode through RoPE", 1, torch.float32, "decode, module"),
    Case("prefill in place, float32", 2048, torch.float32, "in place"),
    Case("prefill in place, bfloat16", 2048, torch.bfloat16, "in place"),
    Case("prefill out of place, float32", 2048, torch.float32, "out of place"),
    Case("prefill out of place, bfloat16", 2048, torch.bfloat16, "out of place"),
    Case("backward, float32", 2048, torch.float32, "backward"),
    Case("variants, float32", 2048, torch.float32, "variants"),
    Case("variants, bfloat16", 2048, torch.bfloat16, "variants"),
)
GPU_CASES = (
    Case("GPU, out of place, bfloat16", 8192, torch.bfloat16, "out of place", "cuda"),
    Case("GPU, in place, bfloat16", 8192, torch.bfloat16, "in place", "cuda"),
    Case("GPU, backward, bfloat16", 8192, torch.bfloat16, "backward", "cuda"),
    Case("GPU, variants, bfloat16", 8192, torch.bfloat16, "variants", "cuda"),
)


@dataclass(frozen=True)
class Microseconds:
    """A limit on the difference of two times, where a ratio says nothing of what Python costs."""

    more: float


OPERATOR = "posenc, operator out of place"
CLASS_COSTS = Microseconds(5)

#: (case, contestant, compared with, the largest ratio or difference of the times): what the library promises itself.
LIMITS: tuple[tuple[str, str, str, float | Microseconds], ...] = (
    ("decode", "posenc, operator in place", "copy in place", 2.0),
    ("decode", "posenc, operator in place", "transformers", 1 / 8),
    ("decode through RoPE", "RoPE.on_queries_keys, int", "transformers, module and function", 1 / 4),
    ("decode through RoPE", "RoPE.on_queries_keys, tensor", "transformers, module and function", 1 / 4),
    ("decode through RoPE", "RoPE.on_queries_keys, int", OPERATOR, CLASS_COSTS),
    ("decode through RoPE", "RoPE.on_queries_keys, tensor", OPERATOR, CLASS_COSTS),
    *((f"prefill in place, {d}", "posenc, in place", "copy in place", 1.2) for d in ("float32", "bfloat16")),
    *((f"prefill in place, {d}", "posenc, in place", "transformers", 1 / 8) for d in ("float32", "bfloat16")),
    *((f"prefill out of place, {d}", "posenc, out of place", "clone", 1.1) for d in ("float32", "bfloat16")),
    *((f"prefill out of place, {d}", "posenc, out of place", "transformers", 1 / 3) for d in ("float32", "bfloat16")),
    *(
        (f"prefill out of place, {d}", "posenc, out of place", "transformers, compiled", 1 / 2)
        for d in ("float32", "bfloat16")
    ),
    ("backward, float32", "posenc, backward", "posenc, forward", 1.2),
    *(
        (f"variants, {d}", f"posenc, {v}", "posenc, plain", 1.3)
        for d in ("float32", "bfloat16")
        for v in ("interleaved", "partial", "transposed")
    ),
    ("GPU, in place, bfloat16", "posenc, in place", "copy in place", 1 / 0.85),
    ("GPU, out of place, bfloat16", "posenc, out of place", "clone", 1 / 0.85),
    ("GPU, in place, bfloat16", "posenc, in place", "Liger, in place", 1.0),
    *(
        ("GPU, out of place, bfloat16", "posenc, out of place", peer, 1.0)
        for peer in ("transformers, compiled", "flash-attention")
    ),
)
