"""ONNX: models with any encoding, and rotations as the standard operator ``RotaryEmbedding``."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from posenc.kernels.rotate.standard import wanted

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

_OPSET = 23  # the first that has RotaryEmbedding


def export(model: nn.Module, args: tuple[Any, ...], *, opset_version: int = _OPSET, **options: Any) -> "ONNXProgram":
    """``torch.onnx.export(model, args, dynamo=True)``, with each rotation one node ``RotaryEmbedding``.

    Runtimes have a kernel for this operator; ``torch.onnx.export`` alone writes a rotation as a dozen elementary
    operators. ``RotaryEmbedding`` covers RoPE, xPos and M-RoPE, both pairings, any slice of the channels, any layout.
    Elementary operators remain for float64, rates that differ between heads, and slices that are paired axis by axis.

    Args:
        model: in eval mode.
        args: example inputs.
        opset_version: 23 or above.
        options: those of ``torch.onnx.export``, such as ``dynamic_shapes``.

    Returns:
        The program: ``program.save("model.onnx")`` writes it.

    Raises:
        ValueError: an opset below 23, which has no such operator.
    """
    if opset_version < _OPSET:
        raise ValueError(
            f"export: got opset_version {opset_version}, expected at least {_OPSET}, the first with RotaryEmbedding; "
            "torch.onnx.export writes rotations as elementary operators, which any opset has."
        )
    with wanted():
        program = torch.onnx.export(model, args, dynamo=True, opset_version=opset_version, **options)
    if program is None:
        raise ValueError("export: torch.onnx.export gave no program; leave f out, and use program.save(path).")
    return program
