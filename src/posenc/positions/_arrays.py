"""Functions compute with tensors of torch, and return the kind of array that they were given."""

from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.kernels.precision import sent

_OF_RANK = {(1,): "1 dimension", (2,): "2 dimensions", (3,): "3 dimensions", (1, 2): "1 or 2 dimensions"}
Array: TypeAlias = Tensor | NDArray[Any]
A = TypeVar("A", Tensor, NDArray[Any])


def tensor(name: str, array: Array, *, ndim: tuple[int, ...]) -> Tensor:
    """A torch or NumPy array as a tensor, of one of these ranks."""
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(np.ascontiguousarray(array))
    if not isinstance(array, Tensor):
        raise TypeError(f"{name}: got a value of type {type(array).__name__}, expected a torch or a NumPy array.")
    if array.ndim not in ndim:
        raise ValueError(f"{name}: got shape {tuple(array.shape)}, expected {_OF_RANK[ndim]}.")
    return array


@overload
def like(result: Tensor, given: Tensor | None) -> Tensor: ...


@overload
def like(result: Tensor, given: NDArray[Any]) -> NDArray[Any]: ...


def like(result: Tensor, given: Array | None) -> Array:
    """The result as an array of the kind that was given: a tensor on its device, or a NumPy array.

    On a device without float64, such as Apple's, float64 becomes float32.
    """
    if isinstance(given, np.ndarray):
        return result.cpu().numpy()
    return result if given is None else sent(result, given.device)


def check_dim(function: str, array: Tensor, dim: int) -> None:
    """Refuse a dimension that the array does not have."""
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or not -array.ndim <= dim < array.ndim:
        raise ValueError(
            f"{function}: got dim {dim!r} for an array of shape {tuple(array.shape)}, expected {-array.ndim} to "
            f"{array.ndim - 1}."
        )


def check_at_least(function: str, **numbers: tuple[int, int]) -> None:
    """Refuse whole numbers below their least value, and what is none: name=(number, least).

    Raises:
        TypeError: something else than a whole number.
        ValueError: a whole number that is too small.
    """
    for name, (number, least) in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"{function}: got {name} {number!r}, expected a whole number of at least {least}.")
        if number < least:
            raise ValueError(f"{function}: got {name} {number}, expected a whole number of at least {least}.")
