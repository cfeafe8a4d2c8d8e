"""One encoding for another in a live model of timm."""

import copy
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc import attention
from posenc.embeddings import LearnedGrid
from posenc.encoding import EmbeddingEncoding, Encoding
from posenc.frequencies.arguments import check_instance
from posenc.integrations.copied_functions import with_globals
from posenc.integrations.held import Held, own
from posenc.integrations.image_positions import Places, codes_for
from posenc.integrations.patch import Patch
from posenc.integrations.timm.accelerate import run
from posenc.integrations.timm.library import live_model
from posenc.integrations.timm.modules import reader_of
from posenc.integrations.timm.tables import grid_of
from posenc.integrations.transformers.live.sites import find_sites

_ROTATES = re.compile(r"^apply_rot_embed_cat$")


def replace(model: Any, encoding: Encoding, *, positions: Tensor | None = None, inputs: Tensor | None = None) -> Patch:
    """Replace the positional encoding of a live model of timm by another.

    ``replace`` removes the rotation from every attention and overwrites a learned table with zeros, or with the codes
    of an encoding of the embeddings. An encoding of the queries and keys or of the scores acts in every attention. An
    encoding of two coordinates gets the row and column of each patch; tokens before the patches have coordinates 0 and
    are not rotated. Parameters of the encoding become the model's (``posenc_encoding``) and are trained with it.

    To load a saved model, call ``replace`` with an encoding of the same settings before ``load_state_dict``, which then
    loads the parameters of the encoding too.

    Args:
        model: a model of timm whose attentions call ``scaled_dot_product_attention``: ViT, DeiT, EVA, DINOv3, ...
        encoding: any encoding of posenc without a ``window``; :class:`posenc.NoPE` for none.
        positions: other coordinates of the tokens, ``(1, tokens, coordinates)``, as ``posenc.positions.grid(14, 14,
            prefix=1, unit="centred")`` gives them.
        inputs: images for one run that checks that the encoding acts; by default one image of the model's size.

    Returns:
        A :class:`Patch`.

    Raises:
        TypeError: no model of timm, or no encoding.
        ValueError: an encoding that cannot be removed, or one that cannot be added; the model is unchanged.
    """
    inner: Any = live_model(model, "replace")
    check_instance("replace", "encoding", encoding, Encoding, "posenc.AxialRoPE(64)")
    parts = encoding.parts
    if any(type(part).carry is not Encoding.carry for part in parts):
        raise ValueError(
            f"replace: {type(encoding).__name__} carries a state from token to token, expected an encoding without a "
            "state."
        )
    places = Places(encoding, grid_of(inner), positions)
    patch = Patch(inner, f"replace the encoding of {type(inner).__name__} by {type(encoding).__name__}")
    try:
        _take_out(patch, inner, [part for part in parts if isinstance(part, EmbeddingEncoding)])
        if set(encoding.places) - {"embeddings"}:
            _put_in(patch, inner, encoding, places, inputs)
        if not encoding.places:  # the model says by it that its own encoding is gone
            own(patch, inner, encoding)
    except Exception:
        patch.roll_back()
        raise
    return patch.commit()


def _take_out(patch: Patch, model: nn.Module, added: list[EmbeddingEncoding]) -> None:
    """The positions that describe finds; an encoding of the embeddings is written into the table."""
    written = False
    for path, module in model.named_modules():
        reader = reader_of(module)
        for row in () if reader is None else reader(module, model):
            where = ".".join(filter(None, (path, row.label)))
            if type(module).__name__.startswith("RotaryEmbedding"):
                continue  # its function is replaced below
            table = getattr(module, row.label, None)
            if not isinstance(row.encoding, LearnedGrid) or not isinstance(table, nn.Parameter):
                why = row.notes[0] if row.encoding is None else f"it is {type(row.encoding).__name__} within a window"
                raise ValueError(f"replace: {where} cannot be removed: {why}.")
            values = torch.zeros_like(table)
            if added and values.ndim != 3:
                raise ValueError(
                    f"replace: {type(added[0]).__name__} acts on the embeddings, and {where} has the shape "
                    f"{tuple(table.shape)} and no rows that the codes could be written "
                    f"into{''.join(f'; {n}' for n in row.notes)}."
                )
            if added:
                codes = codes_for(added[0], row.encoding.grid, row.encoding.prefix, row.encoding.dim)
                values[0] = codes.to(values)
                written = True
            learns = bool(added) and any(True for _ in added[0].parameters())
            patch.swap(module._parameters, row.label, nn.Parameter(values, learns))
    if added and not written:
        raise ValueError(
            f"replace: {type(added[0]).__name__} acts on the embeddings, and the model has no table to write it into."
        )
    if any(type(module).__name__.startswith("RotaryEmbedding") for module in model.modules()):
        for site in find_sites(model, _ROTATES):
            names = {name: _unturned for name, _ in site.functions}
            patch.bind(site.module, site.method, site.rebuilt(names))


def _unturned(x: Tensor, emb: Tensor, half: bool = False) -> Tensor:
    return x


class _Functional:
    """``torch.nn.functional`` with another attention: posenc's, with an encoding."""

    def __init__(self, held: Held, places: Places) -> None:
        self.held, self.places = held, places
        self.reached: list[int] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(functional, name)

    def scaled_dot_product_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """As PyTorch's."""
        if self.reached is not None:
            self.reached.append(1)
        if query.shape[2] != key.shape[2]:
            raise ValueError(f"replace: got {query.shape[2]} queries and {key.shape[2]} keys, expected equal numbers.")
        encoding, tokens, head_dim = self.held.encoding, key.shape[2], key.shape[-1]
        query, key = encoding.on_queries_keys(query, key, self.places.of(tokens, key.device))
        where = torch.arange(tokens, device=key.device)
        own = encoding.softmax_scale(head_dim)
        return attention(
            query,
            key,
            value,
            encoding,
            q_positions=where,
            k_positions=where,
            causal=is_causal,
            mask=attn_mask,
            dropout_p=dropout_p,
            scale=scale if own == head_dim**-0.5 else own,
        )


class _Twins:
    """The forwards of a model's attentions in which ``F`` is another."""

    def __init__(self, functional: _Functional) -> None:
        self.functional = functional
        self._twins: dict[FunctionType, Callable[..., Any]] = {}

    def twin(self, code: FunctionType) -> Callable[..., Any]:
        if code not in self._twins:
            self._twins[code] = with_globals(code, {"F": self.functional})
        return self._twins[code]

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Twins":
        memo[id(self)] = made = _Twins(copy.deepcopy(self.functional, memo))
        return made


def _forward(code: FunctionType) -> Callable[..., Any]:
    def forward(self: Any, *args: Any, **options: Any) -> Any:
        return self._posenc.twin(code)(self, *args, **options)

    return forward


def _put_in(patch: Patch, model: nn.Module, encoding: Encoding, places: Places, inputs: Tensor | None) -> None:
    own(patch, model, encoding)
    twins, chosen = _Twins(_Functional(Held(model), places)), 0
    for path, module in model.named_modules():
        present = vars(module).get("forward", getattr(type(module), "forward", None))
        code = getattr(present, "__func__", present)
        if not isinstance(code, FunctionType) or "scaled_dot_product_attention" not in code.__code__.co_names:
            continue
        if type(module).__name__ == "AttentionPoolLatent":
            continue  # its queries are learned, and stand nowhere
        if getattr(module, "fused_attn", True) is not True or code.__globals__.get("F") is None:
            raise ValueError(
                f"replace: {path} computes its attention without scaled_dot_product_attention, so posenc cannot reach "
                "the scores."
            )
        patch.assign(module, "_posenc", twins)
        patch.bind(module, "forward", _forward(code))
        chosen += 1
    if not chosen:
        raise ValueError(f"replace: no attention of {type(model).__name__} calls scaled_dot_product_attention.")
    reached: list[int] = []
    twins.functional.reached = reached
    try:
        run(model, inputs)
    except ValueError as error:
        raise ValueError(f"replace: {type(encoding).__name__} does not fit {type(model).__name__}: {error}") from error
    finally:
        twins.functional.reached = None
    if len(reached) < chosen:
        raise ValueError(
            f"replace: a forward pass called {len(reached)} of {chosen} attention layers; give inputs=..., arguments "
            "with which the forward pass calls all of them."
        )
