"""Which tensors are taken: dense ones, of a floating dtype that is computed in; DTensors where they work."""

import torch
from torch import Tensor

#: What is computed in float32 or float64. float8 is for storage and matrix products alone.
DTYPES = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
#: The types that are no subclass with rules of its own.
PLAIN = frozenset((Tensor, torch.nn.Parameter))


def dtype_of_plain(q: Tensor, k: Tensor, v: Tensor) -> torch.dtype | None:
    """The one dtype of dense tensors on the CPU that are of no subclass; None where more has to be asked.

    What comes later need not read it again: in a step of decoding each reading counts.
    """
    if not (type(q) in PLAIN and type(k) in PLAIN and type(v) in PLAIN):
        return None
    dtype = q.dtype
    plain = (
        dtype in DTYPES
        and (k.dtype is dtype and v.dtype is dtype)
        and (q.is_cpu and k.is_cpu and v.is_cpu)
        and not (q.is_nested or k.is_nested or v.is_nested)
        and q.layout is k.layout is v.layout is torch.strided
    )
    return dtype if plain else None


def check_tensors(who: str, **values: object) -> None:
    """Refuse what is no tensor, by the name of the argument.

    Raises:
        TypeError: None, an array of NumPy, a list, ...
    """
    for name, value in values.items():
        if type(value) is not Tensor and not isinstance(value, Tensor):
            given = "None" if value is None else f"a value of type {type(value).__name__}"
            advice = "" if value is None else f"; give torch.as_tensor({name})"
            raise TypeError(f"{who}: got {given} for {name}, expected a tensor{advice}.")


def check_dense(who: str, **tensors: Tensor) -> None:
    """Refuse sparse tensors, by the name of the argument.

    Raises:
        ValueError: a sparse layout.
    """
    for name, x in tensors.items():
        if x.layout is not torch.strided and not x.is_nested:
            raise ValueError(f"{who}: got {name} of {x.layout}, expected a dense tensor; give {name}.to_dense().")


def check_inputs(who: str, **tensors: Tensor) -> None:
    """Refuse, by the name of the argument, what the arithmetic is not for.

    Raises:
        TypeError: a nested tensor; no tensor at all.
        ValueError: a dtype that is not float64, float32, float16 or bfloat16; a sparse tensor; tensors on several
            devices; a DTensor outside of ``implicit_replication``.
    """
    check_tensors(who, **tensors)
    check_dense(who, **tensors)
    plain, device = True, None  # this runs in every step of decoding: plain tensors are asked no more than they need
    for name, x in tensors.items():
        plain = plain and type(x) is Tensor
        if device is not None and x.device != device:
            on = ", ".join(f"{each} on {tensor.device}" for each, tensor in tensors.items())
            raise ValueError(f"{who}: got {on}, expected all of them on one device; move them with .to(device).")
        device = x.device
        if x.is_nested:
            raise TypeError(
                f"{who}: got a nested tensor for {name}, expected a dense one, because each of its sequences has "
                "its own positions; pad it, or pack its values() with positions from posenc.positions.from_lengths."
            )
        if x.dtype not in DTYPES:
            raise ValueError(
                f"{who}: got {name} of {x.dtype}, expected float64, float32, float16 or bfloat16; cast it before and "
                "the result back."
            )
    if not plain:
        check_replicates(who, *tensors.values())


def is_distributed(x: object) -> bool:
    """Whether x is a DTensor. Nothing of torch.distributed is imported to find out."""
    return type(x) is not Tensor and type(x).__name__ == "DTensor"


def check_replicates(name: str, *tensors: object) -> None:
    """Refuse DTensors where plain tensors, such as positions and masks, do not count as the same in all processes.

    Raises:
        ValueError: a DTensor outside of ``implicit_replication``.
    """
    if not any(is_distributed(x) for x in tensors):
        return
    from torch.distributed.tensor import DTensor

    dispatcher = getattr(DTensor, "_op_dispatcher", None)
    if not getattr(dispatcher, "_allow_implicit_replication", True) and not torch.compiler.is_compiling():
        raise ValueError(
            f"{name}: got a DTensor, expected the call to run within "
            "torch.distributed.tensor.experimental.implicit_replication(), so that positions and masks, which are "
            "plain tensors, count as equal in all processes; run the forward and the backward pass within it."
        )
