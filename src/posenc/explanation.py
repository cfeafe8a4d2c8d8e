"""Which implementation a call takes, and why."""

from collections.abc import Callable
from typing import Any

from posenc.kernels.choice import Choice as Choice


def explain(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Choice:
    """Say which implementation ``call(*args, **kwargs)`` would use, and why. Nothing is computed.

    A kernel that is still to be compiled is compiled, as the call itself would do.

    Args:
        call: a function or method that has several implementations, such as ``rope.on_queries_keys``.
        args, kwargs: what it would be called with.

    Returns:
        a :class:`Choice` with ``operation``, ``implementation`` and ``why``; as text, a sentence.

    Raises:
        TypeError: the call has one implementation only.

    Example:
        >>> import torch
        >>> from posenc import RoPE
        >>> rope = RoPE(head_dim=8, implementation="eager")
        >>> q = k = torch.randn(1, 2, 3, 8)
        >>> print(explain(rope.on_queries_keys, q, k))
        rotate: eager, because implementation="eager" asks for it
    """
    explainer = getattr(call, "__explainer__", None)
    if explainer is None:
        name = getattr(call, "__qualname__", repr(call))
        raise TypeError(
            f"explain: got {name}, which has a single implementation; expected a call that has several "
            "implementations, such as RoPE(...).on_queries_keys."
        )
    owner = getattr(call, "__self__", None)
    choice: Choice = explainer(*args, **kwargs) if owner is None else explainer(owner, *args, **kwargs)
    return choice
