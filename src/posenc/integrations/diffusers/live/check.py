"""Does a live model of diffusers make the tables that its config says?"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from posenc.integrations.diffusers.description.reader import modules, replaced, tables_added
from posenc.integrations.diffusers.description.tables import Row, Turning
from posenc.integrations.diffusers.live.model import diffusers_model
from posenc.integrations.transformers.live.findings import Finding, Report

#: What float32 may cost: this much of a number, and of an angle.
_SHARE = 4e-6


def check(model: Any) -> Report:
    """Compare the tables of a live model of diffusers with those of its description, on a small grid.

    ``check`` calls each module that makes tables as the model does. It does not read the weights or run the model. A
    model that was cast as a whole, by ``model.to(torch.bfloat16)``, has tables in bfloat16, which is a finding. A model
    that was loaded with ``torch_dtype=torch.bfloat16`` keeps them in float32.

    Args:
        model: a model of diffusers, such as ``pipe.transformer``.

    Returns:
        A :class:`posenc.integrations.transformers.Report`; ``report.findings`` is empty for a correct model.

    Raises:
        TypeError: no model of diffusers.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> model = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4,
        ...                               text_dim=8, freq_dim=8, ffn_dim=8, num_layers=1, rope_max_seq_len=32)
        >>> check(model).findings
        ()
        >>> print(check(model.to(torch.bfloat16)).findings[0])
        rope: its tables were rounded to bfloat16, with errors of up to 0.0017; keep them in float32
    """
    inner: Any = diffusers_model(model, "check")
    findings: list[Finding] = []
    checked: list[str] = []
    unchecked: list[str] = []
    for name, module, row in modules(inner):
        name = name or type(inner).__name__
        if row.argument:
            unchecked.append(f"{name}: its tables are made by the pipeline")
            continue
        if any(tensor.is_meta for tensor in _tensors(module)):
            unchecked.append(f"{name}: it has no tables, being on the meta device")
            continue
        changed = replaced(module, row)
        encoding = row.encoding(module, inner) if changed is None else changed
        error = difference(module, row, encoding)
        if error is None:
            checked.append(f"{name}: {encoding}")
        else:
            findings.append(Finding(name, "tables", f"its tables {error}"))
    for name, module, added in tables_added(inner):
        name = name or type(inner).__name__
        if added.coordinates(module, inner) is None:
            unchecked.append(f"{name}: its table is learned")
        elif (error := added.difference(module, inner)) is not None:
            findings.append(Finding(name, "tables", f"its table {error}"))
        else:
            checked.append(f"{name}: {added.encoding(module, inner)}")
    if not (findings or checked or unchecked):
        unchecked.append(f"{type(inner).__name__}: none of its modules makes tables that are known here")
    return Report(type(inner).__name__, tuple(findings), tuple(checked), tuple(unchecked))


def difference(module: Any, row: Row, encoding: Turning) -> str | None:
    """In which way the module's tables are other than those of the encoding; None if they are not."""
    call = {**row.probe(module), **row.given(encoding)}
    with torch.no_grad():
        theirs = tensors_in(getattr(module, row.method)(**call))
        ours = tensors_in(row.tables(encoding, module, arguments(module, row, (), dict(call))))
        angle = max(
            float(encoding.phases(where[None] if where.ndim == 2 and encoding.coordinates else where)[0].abs().max())
            for where in row.coordinates(module, call)
        )
    shapes = [[tuple(table.shape) for table in tables] for tables in (theirs, ours)]
    if shapes[0] != shapes[1]:
        return f"have the shapes {shapes[0]}, and its config says {shapes[1]}"
    wide = [[table.cpu().to(torch.complex128) for table in tables] for tables in (theirs, ours)]
    far = max(float((a - b).abs().max()) for a, b in zip(*wide, strict=True))
    if far <= _SHARE * (1 + angle):
        return None
    half = {tensor.dtype for tensor in _tensors(module)} & {torch.bfloat16, torch.float16}
    if half:
        dtype = str(half.pop()).removeprefix("torch.")
        return f"were rounded to {dtype}, with errors of up to {far:.2g}; keep them in float32"
    return f"differ by up to {far:.3g} from what its config says"


def arguments(module: Any, row: Row, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """What the method is called with, by name, defaults included."""
    bound = inspect.signature(getattr(_own_class(module), row.method)).bind(module, *args, **options)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if value is not module}


def _own_class(module: Any) -> type:
    cls = type(module)
    return cls.__mro__[1] if "_posenc" in vars(cls) else cls


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of an output, in their order."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts for tensor in tensors_in(part)]


def _tensors(module: Any) -> list[Tensor]:
    held = list(module.buffers()) if isinstance(module, nn.Module) else []
    for value in vars(module).values():
        held += [part for part in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(part, Tensor)]
    return held
