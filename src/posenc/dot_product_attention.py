"""Softmax attention with the bias and the temperatures of an encoding."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posenc.encoding import ContextualEncoding, Encoding
from posenc.frequencies.arguments import check_flag, check_instance, check_number
from posenc.kernels.biased_attention import again, fused, plan
from posenc.kernels.biased_attention.plan import Implementation
from posenc.kernels.biased_attention.problem import Problem
from posenc.kernels.biased_attention.shapes import OTHER_ORDER, checked_shapes
from posenc.kernels.biased_attention.temperature import WithTemperature, scaled
from posenc.kernels.choice import Choice, explained_by
from posenc.kernels.inputs import check_inputs, check_tensors, dtype_of_plain
from posenc.kernels.precision import compute_dtype, sent, without_autocast
from posenc.positions import Positions, resolve, resolve_coordinates
from posenc.positions._resolve import LAST_POSITION


def _explain(q: Tensor, k: Tensor, v: Tensor, encoding: Encoding | None = None, **options: Any) -> Choice:
    implementation = options.pop("implementation", "auto")
    problem = _problem(q, k, v, encoding, **options)
    chosen, reason = plan.choose(problem, implementation)
    why = reason if isinstance(reason, str) else reason(problem)
    return Choice("attention", chosen, f"{why}; compiled code uses {fused.level()}" if chosen == "cpu" else why)


@explained_by(_explain)
def attention(
    q: Float[Tensor, "batch heads q_len head_dim"],
    k: Float[Tensor, "batch kv_heads k_len head_dim"],
    v: Float[Tensor, "batch kv_heads k_len value_dim"],
    encoding: Encoding | None = None,
    *,
    q_positions: Positions = None,
    k_positions: Positions = None,
    causal: bool = False,
    window: int | None = None,
    documents: Int[Tensor, "*batch k_len"] | None = None,
    mask: Bool[Tensor, "..."] | Float[Tensor, "..."] | None = None,
    sinks: Float[Tensor, " heads"] | None = None,
    state: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    implementation: Implementation = "auto",
) -> Float[Tensor, "batch heads q_len value_dim"]:
    r"""Scaled dot-product attention with the encoding's bias on the scores, in memory linear in the length.

    .. math::
        y_i = \sum_j \mathrm{softmax}_j\big(\tau^s_h(i)\,(\tau^p_h(i)\, s\, q_i \cdot k_j + b_h(i, j)) +
        \mathrm{mask}_{ij}\big)\, v_j

    This applies place 3 of an encoding. The model calls places 1 and 2 itself, before the first block and before the KV
    cache. Grouped heads: k and v may have fewer heads, if their number divides that of q.

    Args:
        q: queries.
        k: keys, in as many heads as q or fewer.
        v: a value for each key.
        encoding: the encoding whose bias is added; None adds nothing.
        q_positions: None, an int offset, ``(seq,)`` or ``(batch, seq)``. By default the queries are the last of the
            keys, as in decoding with a cache.
        k_positions: the same; by default they start from 0.
        causal: query t of q_len sees the keys up to k_len - q_len + t: by order in the sequence, aligned at the end.
        window: a query sees the keys that are fewer than this many tokens away in the sequence, on either side if not
            causal. Keys that no query of a block may see are skipped, so the cost grows linearly with the length.
        documents: for packed sequences, the number of the document of each key, ``(k_len,)`` or ``(batch, k_len)``;
            tokens see their own document only. The queries are the last q_len of the keys.
        mask: one more restriction, broadcast to ``(batch, heads, q_len, k_len)``: True where a query may see a key
            (bool), or numbers that are added to the scores (float).
        sinks: one extra score for each head: it takes part in the softmax and has no value.
        state: what ``encoding.carry`` made of the layer's input, for an encoding that has a state.
        scale: :math:`s`; by default the encoding's own, which is 1 / sqrt(head_dim) for almost all. The bias is not
            multiplied by it. The encoding's temperatures, where it has any, are :math:`\tau^p`, which leaves the bias
            alone, and :math:`\tau^s`, which multiplies it too.
        dropout_p: dropout on the weights; pass 0.0 outside training.
        implementation: "auto" chooses the fastest exact one (:func:`posenc.explain` says which). If you name one, it is
            used, or the call raises an error. "cpu": compiled code, for no bias or a bias of the distance, and some
            others. "sdpa": PyTorch's own, without a bias. "blocks": one block of queries at a time, whose bias is
            computed again in the backward. "flex": FlexAttention; no backward on the CPU. "channels": a bias that is
            a dot product, as extra channels of q and k. "dense": all scores at once, the reference.

    Returns:
        ``(batch, heads, q_len, value_dim)``, in the dtype of q. A query that may see nothing gets zeros.

    Precision: exact for float64 and float32, up to rounding; "cpu" sets weights below exp(-87) of the largest of
    the query to 0, and rounds float16 and bfloat16 once, in the result. With a bias, the arithmetic of float16 and
    bfloat16 is float32, because a bias of some hundreds has no fraction left in bfloat16. "channels" rounds the bias
    with the dot product: its error grows with the position. If q, k and v have different dtypes, all are cast to the
    widest first.

    Raises:
        ValueError: heads, lengths, masks, dtypes or positions that do not fit; more queries than keys with ``causal``
            or ``window``; a scale that is not finite; keys after a query for an encoding that is ``causal_only``; an
            implementation that cannot compute the call.
        TypeError: nested tensors; what is no tensor, or, for ``causal``, neither True nor False.

    Example:
        >>> import posenc
        >>> q = k = v = torch.randn(1, 4, 6, 8)
        >>> posenc.attention(q, k, v, posenc.ALiBi(num_heads=4), causal=True).shape
        torch.Size([1, 4, 6, 8])
    """
    if type(k_positions) is int and k_positions == 0:
        k_positions = None  # which says the same
    plain = q_positions is k_positions is documents is mask is sinks is state is None and scale is None
    plain = plain and (window is None or (type(window) is int and window > 0))
    plain = plain and causal is True and type(dropout_p) is float and dropout_p == 0 and implementation == "auto"
    if plain and (encoding is None or isinstance(encoding, Encoding)):
        y = again.run(q, k, v, encoding, window)
        if y is not None:
            return y
    problem = _problem(
        q, k, v, encoding, q_positions, k_positions, causal, window, documents, mask, sinks, state, scale, dropout_p
    )
    chosen, _ = plan.choose(problem, implementation)
    if chosen == "cpu":  # it reads and writes every dtype, and autocast does not enter it
        return plan.run(chosen, problem)
    if chosen in ("sdpa", "flex"):
        return plan.run(chosen, _widened(problem, chosen)).to(q.dtype)
    # Autocast would take the bias to half precision on its way into the scores.
    with without_autocast(q.device.type):
        return plan.run(chosen, _widened(problem, chosen)).to(q.dtype)


def _problem(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    encoding: Encoding | None,
    q_positions: Positions = None,
    k_positions: Positions = None,
    causal: bool = False,
    window: int | None = None,
    documents: Tensor | None = None,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    state: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> Problem:
    """The call with everything checked and resolved. Arguments are handed on by place: names take 0.3 us more."""
    if encoding is not None:
        check_instance("attention", "encoding", encoding, Encoding, "ALiBi(num_heads=8)")
    dtype = dtype_of_plain(q, k, v)
    if dtype is None:
        check_inputs("attention", q=q, k=k, v=v)
    if causal is not True and causal is not False:
        check_flag("attention", "causal", causal)
        causal = bool(causal)
    heads, q_len, head_dim, k_len = checked_shapes(q, k, v, causal)
    restricted = not (window is None and documents is None and mask is None and sinks is None)
    if restricted:
        _check_masks(q, k, window=window, documents=documents, mask=mask, sinks=sinks)
    if type(dropout_p) is not float or dropout_p:
        _check_dropout(dropout_p)
    if scale is not None:
        check_number("attention", "scale", scale)
    else:
        scale = head_dim**-0.5 if encoding is None else encoding.softmax_scale(head_dim)
    if not causal and encoding is not None and encoding.causal_only:
        _check_causal_only(q, k, encoding, q_positions=q_positions, k_positions=k_positions, mask=mask)
    part = None if encoding is None else encoding.at("scores")
    contextual, adds = False, None
    if part is not None and isinstance(part, ContextualEncoding):
        contextual, adds = True, part.value_dim
    if adds is not None and v.shape[-1] not in (adds, head_dim):  # equal ones are answered as q's
        raise ValueError(
            f"attention: got v of {v.shape[-1]} channels, expected {adds}, because {type(part).__name__} adds to the "
            f"values; build the encoding with head_dim={v.shape[-1]}, or so that it does not change the values."
        )
    acts: Any = part  # what a kernel asks for its bias
    if encoding is not None and encoding.scales_scores:
        temperatures = encoding.temperatures(_positions(q, k, q_positions, k_positions)[0])
        if contextual or (part is not None and not temperatures.leaves_the_bias):
            acts = WithTemperature(encoding, part)
        if contextual:
            pass  # it reads the products without a temperature
        elif isinstance(factor := temperatures.of_products, Tensor):
            q = scaled(q, factor)
        else:
            scale = scale * factor
    if scale <= 0 and not contextual:  # fused kernels have no such scale; the queries take it
        q, scale = q * scale, 1.0
    # Only what this call has is said, and most of it after the construction: each name there takes 0.05 us.
    problem = Problem(q, k, v, scale, dtype, causal=causal, dropout_p=dropout_p)
    if restricted:
        if mask is not None and mask.ndim < 4:  # sdpa takes no mask of one dimension
            mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        window = int(window) if isinstance(window, np.integer) else window
        problem.window, problem.documents, problem.mask, problem.sinks = window, documents, mask, sinks
    if part is None:
        _check_unread(q, "q_positions", q_positions)
        _check_unread(k, "k_positions", k_positions)
        return problem
    built_for = getattr(part, "num_heads", heads)
    if built_for != heads:
        raise ValueError(
            f"attention: q has {heads} heads but {type(part).__name__} was built for {built_for}; build it with "
            f"num_heads={heads}" + (OTHER_ORDER if q_len == built_for else ".")
        )
    if state is not None and state.shape[-1] != k_len:
        raise ValueError(
            f"attention: got a state of {state.shape[-1]} tokens for {k_len} keys, expected one entry for each key; "
            "pass the state from step to step together with the KV cache."
        )
    problem.encoding, problem.contextual, problem.state = acts, contextual, state
    problem.given_starts = _starts(q_len, k_len, q_positions, k_positions)
    if problem.given_starts is None:
        problem.q_positions, problem.k_positions = _positions(q, k, q_positions, k_positions)
    return problem


def _starts(q_len: int, k_len: int, q_positions: Positions, k_positions: Positions) -> tuple[int, int] | None:
    """Where positions start that are consecutive by definition: nothing needs to be made or looked at."""
    if q_positions is None and k_positions is None and q_len <= k_len <= LAST_POSITION:
        return k_len - q_len, 0
    k_start = 0 if k_positions is None else k_positions
    q_start = q_positions
    if type(k_start) is not int or k_start < 0:
        return None
    if q_start is None:
        q_start = k_start + k_len - q_len
    if type(q_start) is not int or q_start < 0 or (q_positions is None and q_len > k_len):
        return None
    if max(q_start + q_len, k_start + k_len) > LAST_POSITION:
        return None  # refused where positions are made
    return q_start, k_start


def _check_unread(x: Tensor, name: str, positions: Positions) -> None:
    """Refuse positions that are none, where nothing reads them and so nothing else would."""
    if isinstance(positions, Tensor) and positions.ndim == 3:  # coordinates, which another place reads
        resolve_coordinates(positions, x.shape[-2], positions.shape[-1], device=x.device, name=name, batch=x.shape[0])
    elif positions is not None and not (type(positions) is int and 0 <= positions <= LAST_POSITION - x.shape[-2]):
        resolve(positions, x.shape[-2], device=x.device, name=name, batch=x.shape[0])


def _check_causal_only(
    q: Tensor, k: Tensor, encoding: Encoding, *, q_positions: Positions, k_positions: Positions, mask: Tensor | None
) -> None:
    """Refuse keys after a query, where it is sure that there are some: the positions of the sequence, and no mask.

    One row for all queries, which hides the padding of an encoder, keeps no query from the keys after it.
    """
    one_row = mask is not None and mask.ndim > 1 and mask.shape[-2] == 1 and q.shape[-2] == k.shape[-2]
    open_ahead = mask is None or one_row
    if open_ahead and q_positions is None and k_positions is None and 1 < q.shape[-2] <= k.shape[-2]:
        raise needs_an_order("attention", encoding)


def needs_an_order(name: str, encoding: Encoding) -> ValueError:
    """The refusal of keys after a query for an encoding that is ``causal_only``, by ``name``."""
    parts = " and ".join(type(part).__name__ for part in encoding.parts if part.causal_only)
    return ValueError(
        f"{name}: got {parts}, which is defined only for keys at or before their query, and neither causal=True nor a "
        "mask with a row for each query; give one of the two, or, for an encoder, use an encoding that distinguishes "
        'the two sides, such as T5Bias(direction="both").'
    )


def _positions(q: Tensor, k: Tensor, q_positions: Positions, k_positions: Positions) -> tuple[Tensor, Tensor]:
    q_len, k_len = q.shape[-2], k.shape[-2]
    device, batch = q.device, q.shape[0]
    resolved_k = sent(resolve(k_positions, k_len, device=k.device, name="k_positions", batch=k.shape[0]), k.device)
    if q_positions is not None:
        return sent(resolve(q_positions, q_len, device=device, name="q_positions", batch=batch), device), resolved_k
    if q_len > k_len:
        raise ValueError(
            f"attention: got {q_len} queries for {k_len} keys and no q_positions; give the positions of the queries "
            "as q_positions."
        )
    return resolved_k[..., k_len - q_len :], resolved_k


def _widened(problem: Problem, implementation: str) -> Problem:
    """The problem in the dtype of the arithmetic: kernels that add a bias in float32 by themselves get the original."""
    q, k, v = problem.q, problem.k, problem.v
    dtype = q.dtype
    if not dtype == k.dtype == v.dtype:
        dtype = torch.promote_types(torch.promote_types(dtype, k.dtype), v.dtype)
    if implementation != "sdpa" and (implementation != "flex" or q.device.type != "cuda"):
        dtype = compute_dtype(dtype)
    if q.dtype == k.dtype == v.dtype == dtype:
        return problem
    return replace(problem, q=q.to(dtype), k=k.to(dtype), v=v.to(dtype))


def _check_dropout(dropout_p: float) -> None:
    check_number("attention", "dropout_p", dropout_p)
    if not 0 <= dropout_p < 1:
        raise ValueError(f"attention: got dropout_p {dropout_p}, expected 0 to below 1.")


def _check_masks(
    q: Tensor, k: Tensor, *, window: int | None, documents: Tensor | None, mask: Tensor | None, sinks: Tensor | None
) -> None:
    given = {"documents": documents, "mask": mask, "sinks": sinks}
    check_tensors("attention", **{name: value for name, value in given.items() if value is not None})
    batch, heads, q_len = q.shape[:3]
    k_len = k.shape[-2]
    if window is not None and (isinstance(window, bool) or not isinstance(window, (int, np.integer))):
        raise TypeError(f"attention: got window {window!r}, expected a whole number of tokens.")
    if window is not None and q_len > k_len:
        raise ValueError(
            f"attention: got {q_len} queries for {k_len} keys with window={window}, expected no more queries than "
            "keys; concatenate the cached keys before the new ones."
        )
    if window is not None and window < 1:
        raise ValueError(f"attention: got window {window}, expected at least 1: a query sees its own key.")
    if documents is not None and (
        documents.is_floating_point() or tuple(documents.shape) not in ((k_len,), (1, k_len), (batch, k_len))
    ):
        raise ValueError(
            f"attention: got documents {documents.dtype} {tuple(documents.shape)}, expected one integer for each key, "
            f"the number of its document, of shape ({k_len},) or ({batch}, {k_len})."
        )
    if documents is not None and q_len > k_len:
        raise ValueError(
            f"attention: got documents for {k_len} keys and {q_len} queries, expected no more queries than keys; "
            "concatenate the cached keys before the new ones."
        )
    if sinks is not None and tuple(sinks.shape) != (heads,):
        raise ValueError(f"attention: got sinks of shape {tuple(sinks.shape)}, expected ({heads},): one for each head.")
    if mask is None:
        return
    if mask.device != q.device:
        raise ValueError(f"attention: got a mask on {mask.device} for q on {q.device}, expected one device for both.")
    if not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(
            f"attention: got a mask of {mask.dtype}, expected bool (True where a query may attend to a key) or "
            "floating point (added to the scores)."
        )
    full = (batch, heads, q_len, k_len)
    if mask.ndim > 4 or any(m not in (1, f) for m, f in zip(reversed(mask.shape), reversed(full), strict=False)):
        raise ValueError(
            f"attention: got a mask of shape {tuple(mask.shape)}, expected one that broadcasts to {full}: a padding "
            f"mask (batch, k_len) is mask[:, None, None, :]."
        )
