"""Other frequency rules in a live model of diffusers."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from posenc import AxialRoPE, MRoPE, RoPE
from posenc.frequencies import Frequencies
from posenc.integrations.diffusers.description.reader import describe, modules, replaced, tables_added
from posenc.integrations.diffusers.description.tables import Row, Turning
from posenc.integrations.diffusers.live.check import arguments, difference, tensors_in
from posenc.integrations.diffusers.live.model import diffusers_model
from posenc.integrations.patch import Patch

_OF_SIZE, _OF_FRAMES = ("height", "width"), ("time",)


def extend(
    model: Any,
    rules: Frequencies | Mapping[str, Frequencies],
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
) -> Patch:
    """Change the frequency rule of a live transformer of diffusers, for larger images or longer videos.

    posenc replaces the methods that make the tables by its own, with the same positions. The new tables have no end,
    and their angles are computed in float64. Before that posenc compares each module's own tables with those of its
    description. Weights, config and files do not change, so the change is not saved with the model.

    Args:
        model: a model of diffusers, such as ``pipe.transformer``.
        rules: a rule for each axis by name (``{"time": RIFLEx(...)}``, ``{"height": NTK(2), "width": NTK(2)}``), where
            the other axes do not change; or one rule, for the axes that ``size`` and ``frames`` name. A rule has the
            model's own base: ``NTK(2, base=256)`` for HunyuanVideo.
        size: height and width of the images: applies one rule to both axes.
        frames: the number of frames: applies one rule to the time axis. ``size`` and ``frames`` only select axes. The
            factor and length are in the rule, in units of the coordinates that :func:`describe` names, mostly patches
            of latents.

    Returns:
        A :class:`Patch`.

    Raises:
        TypeError: no model of diffusers; no rule.
        ValueError: no module makes tables that posenc knows, or its tables differ from the description; an unknown
            axis; one rule for several axes without ``size`` or ``frames``; a rule of another base, or one that depends
            on the length if that is not known. The model is then unchanged.

    Example:
        >>> from diffusers import FluxTransformer2DModel
        >>> from posenc.frequencies import NTK
        >>> model = FluxTransformer2DModel(in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        ...     num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 6, 6))
        >>> with extend(model, NTK(2), size=(2048, 2048)):
        ...     describe(model).parts[0].encoding.rules
        (Geometric(base=10000.0), NTK(factor=2, base=10000.0), NTK(factor=2, base=10000.0))
    """
    inner: Any = diffusers_model(model, "extend")
    _check_rules(rules)
    _check_counts(size, frames)
    name = type(inner).__name__
    found = list(modules(inner))
    if not found:
        unread = describe(inner).unread + tuple(f"{where}: a table that is added" for where, *_ in tables_added(inner))
        raise ValueError(
            f"extend: none of the modules of {name} computes tables in a way that posenc knows"
            + (f" ({'; '.join(unread)})" if unread else "")
            + "; nothing was changed."
        )
    turned = [(module, row, replaced(module, row) or row.encoding(module, inner)) for _, module, row in found]
    axes = sorted({axis for _, row, old in turned for axis in row.axes_of(old)})
    if isinstance(rules, Mapping) and (strange := sorted(map(str, rules.keys() - set(axes)))):
        raise ValueError(f"extend: got a rule for {strange}, expected names of the axes of {name}, which are {axes}.")
    patch = Patch(inner, f"extend {name}: {_said(rules)}")
    try:
        for (where, *_), (module, row, old) in zip(found, turned, strict=True):
            new = _with_rules(old, row.axes_of(old), _by_axis(rules, row.axes_of(old), size, frames))
            if new is None:
                continue
            _check_part(where or name, module, row, old)
            _put(patch, module, row, _given(row, old, new) if row.argument else _made(row, new))
    except ValueError as error:
        patch.roll_back()
        raise ValueError(f"extend: {name} cannot be extended in this way: {error}; nothing was changed.") from error
    return patch.commit()


def _said(rules: Frequencies | Mapping[str, Frequencies]) -> str:
    return ", ".join(f"{axis} {rule}" for axis, rule in rules.items()) if isinstance(rules, Mapping) else str(rules)


def _check_rules(rules: Any) -> None:
    given = list(rules.values()) if isinstance(rules, Mapping) else [rules]
    if not given or not all(isinstance(rule, Frequencies) for rule in given):
        raise TypeError(
            f'extend: got {rules!r}, expected a rule such as NTK(2), or one for each axis, such as {{"time": NTK(2)}}.'
        )


def _check_counts(size: Any, frames: Any) -> None:
    if size is not None and not (isinstance(size, (tuple, list)) and len(size) == 2 and all(map(_is_count, size))):
        raise ValueError(f"extend: got size {size!r}, expected height and width, such as (2048, 2048).")
    if frames is not None and not _is_count(frames):
        raise ValueError(f"extend: got frames {frames!r}, expected the number of frames, such as 129.")


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number > 0


def _by_axis(
    rules: Frequencies | Mapping[str, Frequencies],
    axes: tuple[str, ...],
    size: tuple[int, int] | None,
    frames: int | None,
) -> dict[str, Frequencies]:
    if isinstance(rules, Mapping):
        return {axis: rule for axis, rule in rules.items() if axis in axes}
    if len(axes) == 1:
        return {axes[0]: rules}
    chosen = (_OF_SIZE if size is not None else ()) + (_OF_FRAMES if frames is not None else ())
    if not chosen:
        raise ValueError(
            f"got one rule for the axes {axes}; give size=(height, width) or frames=, or a rule for each axis by name"
        )
    return {axis: rules for axis in axes if axis in chosen}


def _with_rules(encoding: Turning, axes: tuple[str, ...], rules: Mapping[str, Frequencies]) -> Turning | None:
    """The encoding with other rules on some axes, or None if it has none of them."""
    if not rules:
        return None
    arguments = {key: value for key, value in encoding.to_dict().items() if key not in ("name", "frequencies")}
    if isinstance(encoding, AxialRoPE):
        old = dict(zip(axes, encoding.rules, strict=True))
        for axis, rule in rules.items():
            _check_base(axis, old[axis], rule)
        return AxialRoPE(**arguments, frequencies=tuple((old | dict(rules))[axis] for axis in axes))
    if isinstance(encoding, (RoPE, MRoPE)):
        if len({*rules.values()}) > 1 or (len(rules) < len(axes)):
            raise ValueError(f"its axes {axes} share one set of rates, so that all of them need the same rule")
        rule = next(iter(rules.values()))
        _check_base(axes[0], encoding.frequencies, rule)
        return type(encoding)(**arguments, frequencies=rule)
    raise ValueError("its rates are learned for each head, so that there is no rule to change")


def _check_base(axis: str, old: Frequencies, new: Frequencies) -> None:
    before, after = getattr(old, "base", None), getattr(new, "base", None)
    if before is None and after is None:
        return
    if before is None or after is None:
        raise ValueError(f"{axis} rotates by {old}, and {new} does not start from that rule")
    start = before if type(old) is not type(new) else getattr(old, "base", before)
    if start != after:
        raise ValueError(
            f"{axis} rotates by {old}, of base {before:g}, and {new} has base {after:g}; give the rule base={before:g}"
        )


def _check_part(where: str, module: Any, row: Row, old: Turning) -> None:
    if not row.argument and (error := difference(module, row, old)) is not None:
        raise ValueError(f"the tables of {where} {error}")


def _made(row: Row, encoding: Turning) -> Callable[..., Any]:
    """A method that makes the tables of the encoding."""

    def method(self: Any, *args: Any, **options: Any) -> Any:
        return row.tables(encoding, self, arguments(self, row, args, options))

    method.posenc_encoding = encoding  # type: ignore[attr-defined]
    return method


def _given(row: Row, old: Turning, new: Turning) -> Callable[..., Any]:
    """A forward that takes tables of the encoding instead of those that it is given."""
    compared = False

    def method(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal compared
        call = arguments(self, row, args, options)
        given = call[row.argument]
        if given is not None:
            if not compared:
                expected = tensors_in(row.tables(old, self, call))
                for a, b in zip(tensors_in(given), expected, strict=True):
                    if a.shape != b.shape or float((a - b).abs().max()) > 1e-3:
                        raise ValueError(
                            f"extend: the pipeline gave {type(self).__name__} other tables than those of {old}, "
                            "expected the same tables, because the new tables are computed from them; undo the patch."
                        )
                compared = True
            like = tensors_in(given)[0]
            made = tensors_in(row.tables(new, self, call))
            put = tuple(table.to(like.device, like.dtype) for table in made)
            call[row.argument] = put[0] if isinstance(given, Tensor) else put
        return type(self).forward(self, **call)

    method.posenc_encoding = new  # type: ignore[attr-defined]
    return method


def _put(patch: Patch, module: Any, row: Row, method: Callable[..., Any]) -> None:
    own = type(module)
    if isinstance(module, nn.Module):
        patch.bind(module, row.method, method)
        return
    body = {row.method: method, "_posenc": True, "__module__": own.__module__, "__qualname__": own.__qualname__}
    cls = type(own.__name__, (own,), body)
    patch.step(lambda: setattr(module, "__class__", cls), lambda: setattr(module, "__class__", own))
