"""One encoding for another in a live model."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from posenc import AxialRoPE, Learned, MRoPE, NoPE, RoPE, attention
from posenc.encoding import EmbeddingEncoding, Encoding
from posenc.frequencies.arguments import check_instance
from posenc.integrations.held import Held, own
from posenc.integrations.image_positions import Places
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.description.reader import describe
from posenc.integrations.transformers.live.check import warn_of_findings
from posenc.integrations.transformers.live.image_tables import image_grid, take_out_of_grid
from posenc.integrations.transformers.live.learned_table import config_of, learned_table, position_tables, swap
from posenc.integrations.transformers.live.parts import check_parts
from posenc.integrations.transformers.live.pretrained import pretrained
from posenc.integrations.transformers.live.sites import Site, find_sites, run, with_sites
from posenc.kernels.precision import may_look

#: What the attention is called in transformers' registry.
NAME = "posenc"


def replace(
    model: Any, encoding: Encoding, *, positions: Tensor | None = None, inputs: Mapping[str, Any] | None = None
) -> Patch:
    """Replace the positional encoding of a live model by another.

    ``replace`` removes the rotation from every attention that has one, and overwrites a learned table. An encoding of
    the embeddings is written into the learned table. An encoding of the queries and keys or of the scores acts in
    posenc's attention function, after the cache. So keys are cached without rotation, and every kind of generation
    works. Parameters of the encoding become the model's (``posenc_encoding``) and are trained with it.

    In a model of images (ViT, DeiT, CLIP, SigLIP, DINOv2, DINOv3, VideoMAE, AST) an encoding of two coordinates gets
    the row and column of each patch; tokens before the patches have coordinates 0 and are not rotated.

    The model was trained with its own encoding: expect worse results until it is trained further. To extend the context
    by another frequency rule use :func:`extend`; plain transformers can load its result. A model that was saved with a
    replaced encoding needs the same call of ``replace`` after it is loaded, with an encoding into which you loaded the
    ``encoding.state_dict()`` that you saved: ``from_pretrained`` does not load its parameters.

    Args:
        model: a model of transformers, or one that wraps it (PEFT).
        encoding: an encoding of the queries and keys or of the scores: RoPE, xPos, PoPE, ALiBi, T5, FIRE, KERPLE, CoPE,
            ...; :class:`posenc.NoPE` for none; for a model with a learned table, also an encoding of the embeddings. An
            encoding that depends on more than distances needs a model without sliding windows.
        positions: coordinates of the tokens of an image, instead of row and column, ``(1, tokens, coordinates)``, as
            ``posenc.positions.grid(14, 14, prefix=1, unit="centred")`` gives them.
        inputs: arguments of the model for one run, which checks that the encoding acts in every attention; by
            default five tokens.

    Returns:
        A :class:`Patch`.

    Raises:
        TypeError: no model of transformers, or no encoding.
        ValueError: an encoding that cannot be removed, or one that cannot be added; the model is unchanged. In a later
            forward: ``position_ids`` with jumps, because the position of a token is its index in the sequence.

    Example:
        >>> import posenc
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        ...                                      num_attention_heads=4, vocab_size=16))
        >>> with replace(model, posenc.ALiBi(num_heads=4)) as patch:
        ...     model(torch.arange(8)[None]).logits.shape
        torch.Size([1, 8, 16])
    """
    inner: Any = pretrained(model, "replace")
    check_instance("replace", "encoding", encoding, Encoding, "posenc.ALiBi(num_heads=8)")
    warn_of_findings(inner, "replace")
    described = describe(inner.config)  # of a model whose encoding was replaced already, too
    grid = image_grid(inner, described)
    _check(encoding)
    check_parts(inner, described, encoding, of_images=grid is not None)
    present = [group.encoding.at("queries_keys") for group in described]
    if positions is not None and grid is None:
        raise ValueError(
            "replace: got positions for a model that reads no images, expected none: the position of a text token is "
            "its index in the sequence; leave positions out."
        )
    places = None if grid is None else Places(encoding, grid, positions)
    patch = Patch(inner, f"replace the encoding of {type(inner).__name__} by {type(encoding).__name__}")
    try:
        if any(isinstance(each, (RoPE, MRoPE, AxialRoPE)) for each in present):
            _out_of_rotary(patch, inner, encoding, places, inputs)
        elif grid is not None:
            take_out_of_grid(patch, inner, described, encoding)
            if set(encoding.places) - {"embeddings"}:
                _into_attention(patch, inner, encoding, places, None, inputs)
        else:
            _out_of_table(patch, inner, encoding, inputs)
        if not encoding.places:  # the model says by it that its own encoding is gone
            own(patch, inner, encoding)
    except Exception:
        patch.roll_back()
        raise
    return patch.commit()


def _check(encoding: Encoding) -> None:
    name = type(encoding).__name__
    for part in encoding.parts:
        if type(part).carry is not Encoding.carry:
            raise ValueError(
                f"replace: {name} carries a state from token to token besides the keys, which transformers' KV cache "
                "does not keep; give an encoding without a state."
            )


def _out_of_rotary(
    patch: Patch, model: Any, encoding: Encoding, places: Places | None, inputs: Mapping[str, Any] | None
) -> None:
    if "embeddings" in encoding.places:
        raise ValueError(
            f"replace: {type(encoding).__name__} acts on the embeddings, and the model has no table of positions to "
            "write it into; expected an encoding of the queries and keys or of the scores, or NoPE."
        )
    try:
        sites = find_sites(model)
        reached: list[Site] = []
        with with_sites(sites, lambda site, function: _noted(function, site, reached)):
            run(model, inputs)
    except ValueError as error:
        raise ValueError(f"replace: the rotation of {type(model).__name__} cannot be removed: {error}.") from error
    kinds = {(type(site.module), site.method) for site in reached}
    chosen = [site for site in sites if (type(site.module), site.method) in kinds]
    for site in chosen:
        names = {name: _unturned(function) for name, function in site.functions}
        patch.bind(site.module, site.method, site.rebuilt(names))
    if encoding.places:
        _into_attention(patch, model, encoding, places, [site.module for site in chosen], inputs)


def _noted(function: Callable[..., Any], site: Site, reached: list[Site]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        reached.append(site)
        return function(*args, **options)

    return call


def _unturned(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its rotation: what it is given comes back."""
    first, second = (*inspect.signature(function).parameters, "")[:2]
    if second in ("k", "xk", "key"):

        def pair(q: Tensor, k: Tensor | None = None, *_: Any, **__: Any) -> tuple[Tensor, Tensor | None]:
            return q, k

        return pair
    if first not in ("x", "tensor"):
        raise ValueError(
            f"replace: {function.__module__}.{function.__name__} takes other arguments than queries and keys."
        )

    def one(x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x

    return one


def _out_of_table(patch: Patch, model: Any, encoding: Encoding, inputs: Mapping[str, Any] | None) -> None:
    part, rows = learned_table(model, "replace", "cannot take the encoding out of")
    tables = position_tables(model, part, rows)
    added = [each for each in encoding.parts if isinstance(each, EmbeddingEncoding)]
    for table in tables:
        weight = table.weight.detach().clone()
        weight[-rows:] = _codes(added[0], rows, table.embedding_dim).to(weight) if added else 0
        learns = bool(added) and isinstance(added[0], Learned)
        swap(patch, table._parameters, "weight", nn.Parameter(weight, learns), weight.shape)
    if set(encoding.places) - {"embeddings"}:
        config = config_of(model.config, part)
        if getattr(config, "is_encoder_decoder", False):
            raise ValueError(
                "replace: got an encoder-decoder model, expected a model that is only an encoder or only a decoder."
            )
        _into_attention(patch, model, encoding, None, None, inputs)


def _codes(encoding: EmbeddingEncoding, rows: int, dim: int) -> Tensor:
    if encoding.dim != dim:
        raise ValueError(
            f"replace: {type(encoding).__name__} has dim {encoding.dim}, expected {dim}, as in the model's table."
        )
    if encoding.max_positions is not None and encoding.max_positions < rows:
        raise ValueError(
            f"replace: {type(encoding).__name__} has {encoding.max_positions} different positions, expected {rows}."
        )
    with torch.no_grad():
        return encoding.codes(torch.arange(rows, device="cpu")).float()


def _into_attention(
    patch: Patch,
    model: Any,
    encoding: Encoding,
    places: Places | None,
    modules: list[nn.Module] | None,
    inputs: Mapping[str, Any] | None,
) -> None:
    """Let the attention of these modules, or of all, be posenc's with this encoding."""
    _register()
    configs: dict[int, Any] = {id(m.config): m.config for m in (modules or model.modules()) if hasattr(m, "config")}
    windowed = any(getattr(config, "sliding_window", None) is not None for config in configs.values())
    if windowed and not encoding.relative:
        raise ValueError(
            f"replace: {type(encoding).__name__} depends on more than the distances between tokens, expected a "
            "relative encoding, because a sliding window drops the first token, from which positions are counted."
        )
    for config in configs.values():
        patch.assign(config, "_attn_implementation_internal", NAME)
    own(patch, model, encoding)
    held, everywhere = Held(model, places), modules is None
    for module in modules if modules is not None else [model]:
        patch.assign(module, "_posenc", held)
    hook: list[Any] = []
    patch.step(
        lambda: hook.append(model.register_forward_pre_hook(_check_positions, with_kwargs=True)),
        lambda: hook.pop().remove(),
    )
    seen: list[nn.Module] = []
    if everywhere:  # the modules make themselves known
        _watch.append((held, seen))
    else:
        _watch.append((None, seen))
    try:
        run(model, inputs)
    except ValueError as error:
        raise ValueError(
            f"replace: {type(encoding).__name__} does not fit {type(model).__name__}: {str(error).rstrip('.')}."
        ) from error
    finally:
        _watch.pop()
    if everywhere:
        for module in dict.fromkeys(seen):
            patch.assign(module, "_posenc", held)
    missing = [module for module in modules or [] if module not in seen]
    if missing or not seen:
        raise ValueError(
            f"replace: the attention of {type(model).__name__} is computed in its own module, expected a model that "
            "uses transformers' AttentionInterface; posenc cannot reach the scores otherwise."
        )


_watch: list[tuple[Held | None, list[nn.Module]]] = []


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _mask)


def _mask(*args: Any, **options: Any) -> Any:
    """A mask that is always there: the places of queries are read from it."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **{**options, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


def _check_positions(module: Any, args: Any, options: dict[str, Any]) -> None:
    """Positions are counted by place: refuse others, but for those of tokens that a mask hides."""
    if torch.compiler.is_compiling():  # a copy to the CPU would be a graph of its own
        return
    if args:
        options = inspect.signature(module.forward).bind_partial(*args, **options).arguments
    given, mask = options.get("position_ids"), options.get("attention_mask")
    # One look a forward, on a GPU too: documents in a pack would be read as one, and nothing else would say so.
    if given is None or given.shape[-1] < 2 or not may_look(given.cpu()):
        return
    place = given - torch.arange(given.shape[-1], device=given.device)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        seen = mask[:, -given.shape[-1] :].bool()
    elif mask is None:
        seen = torch.ones_like(given, dtype=torch.bool)
    else:  # its form is not known: before the first token stands padding, whose positions are all the same
        follows = given.diff(dim=-1, prepend=given[..., :1]) == 1
        seen = (follows | (given > 1)).int().cummax(-1).values.bool()
    first, last = place.masked_fill(~seen, 2**62).amin(-1), place.masked_fill(~seen, -(2**62)).amax(-1)
    if bool((first < last).any()):
        raise ValueError(
            "replace: got position_ids with jumps, expected consecutive positions, because the new encoding counts "
            "tokens by their index in the sequence; put each packed document into its own row."
        )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function with an encoding of posenc's, found at the module."""
    if softcap is not None:
        raise ValueError("its scores are capped (soft cap), which posenc.attention does not support")
    held: Held | None = vars(module).get("_posenc")
    if _watch:
        held = held or _watch[-1][0]
        _watch[-1][1].append(module)
    encoding = NoPE() if held is None else held.encoding
    q_len, k_len = query.shape[2], key.shape[2]
    if attention_mask is not None and attention_mask.dtype is not torch.bool:
        attention_mask = attention_mask > torch.finfo(attention_mask.dtype).min / 2
    if attention_mask is not None:
        attention_mask = attention_mask[..., :k_len]
    positions = torch.arange(k_len, device=key.device)
    q_positions = positions if q_len == k_len else _places(q_len, k_len, attention_mask, positions)
    positions = torch.minimum(positions, q_positions[-1])  # what a static cache has to spare is no token yet
    if not encoding.relative and attention_mask is not None:  # count from the first token, not from padding before it
        padding = attention_mask.any(1).any(1).int().argmax(-1, keepdim=True)
        positions, q_positions = (positions - padding).clamp(min=0), (q_positions - padding).clamp(min=0)
    head_dim = query.shape[-1]  # before place 2, by which the scale is compared
    if held is not None and held.places is not None:  # an image is read at once
        at = held.places.of(k_len, key.device)
        query, key = encoding.on_queries_keys(query, key, at)
    else:
        query, key = encoding.on_queries_keys(query, key, q_positions, k_positions=positions)
    own = encoding.softmax_scale(head_dim)
    result = attention(
        query,
        key,
        value,
        encoding,
        q_positions=q_positions,
        k_positions=positions,
        causal=attention_mask is None and q_len > 1 and bool(getattr(module, "is_causal", False)),
        mask=attention_mask,
        sinks=s_aux,
        scale=scaling if own == head_dim**-0.5 else own,
        dropout_p=dropout,
    )
    return result.transpose(1, 2).contiguous(), None


def _places(q_len: int, k_len: int, mask: Tensor | None, positions: Tensor) -> Tensor:
    """Where in the cache the queries stand: they are the last that any of them sees (a static cache is longer)."""
    if mask is None:
        return positions[k_len - q_len :]
    last = torch.where(mask.flatten(0, -2).any(0), positions, 0).max()
    return last - (q_len - 1) + torch.arange(q_len, device=positions.device)
