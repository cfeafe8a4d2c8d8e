"""How an unknown rotation wants to be called: found out from its signature, and then by trying."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Layout = Literal["(batch, heads, seq, head_dim)", "(batch, seq, heads, head_dim)"]

_ROLES = {
    "q": ("q", "xq", "query", "query_states", "q_embed"),
    "k": ("k", "xk", "key", "key_states", "k_embed"),
    "x": ("x", "t", "tensor", "hidden_states", "input", "inputs", "qk", "u"),
    "cos": ("cos", "cosine"),
    "sin": ("sin", "sine"),
    "freqs_cis": ("freqs_cis", "freqs_ci", "freq_cis"),
    "angles": ("freqs", "freq", "angles"),
    "positions": ("positions", "position_ids", "pos", "position", "seq_positions", "input_pos"),
}

_CUSTOMARY: tuple[tuple[str, ...], ...] = (
    ("x",),
    ("x", "positions"),
    ("q", "k"),
    ("x", "freqs_cis"),
    ("x", "angles"),
    ("x", "cos", "sin"),
    ("q", "k", "positions"),
    ("q", "k", "freqs_cis"),
    ("q", "k", "cos", "sin"),
)


@dataclass(frozen=True)
class Signature:
    """One way to call a rotation: what each required argument is, the layouts of x, of its tables and of positions."""

    roles: tuple[str, ...]
    layout: Layout
    table: str  # how cos, sin or angles are laid out; "none" if the function makes them itself
    names: tuple[str, ...]
    positions: Literal["(batch, seq)", "(seq,)"] = "(batch, seq)"

    @property
    def makes_its_angles(self) -> bool:
        """True if the function gets positions at most, and makes angles itself."""
        return self.table == "none"

    def __str__(self) -> str:
        tables = "" if self.makes_its_angles else f", tables {self.table}"
        positions = f", positions {self.positions}" if "positions" in self.roles else ""
        return f"f({', '.join(self.names)}) on {self.layout}{tables}{positions}"


def load(target: str) -> Callable[..., Any]:
    """The function that ``module:function`` or ``file.py:function`` names; the part after the colon may have dots.

    Raises:
        ValueError: no colon, no such module or file, one that does not run, no such function, or not something that can
            be called.
    """
    home, _, attribute = target.rpartition(":")
    if not home or not attribute:
        raise ValueError(f"diagnose: got {target!r}, expected module:function or file.py:function.")
    try:
        found: Any = _module(home)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError, OSError) as error:
        raise ValueError(
            f"diagnose: cannot find {attribute!r} in {home!r} ({error}); check the spelling, and run it where the "
            "module can be imported."
        ) from error
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(
            f"diagnose: {home} fails when it is imported: {type(error).__name__}: {error}; correct it, or name "
            "another file."
        ) from error
    if not callable(found):
        raise ValueError(f"diagnose: {target!r} is of type {type(found).__name__}, expected a function of tensors.")
    return found  # type: ignore[no-any-return]


def _module(home: str) -> Any:
    if not home.endswith(".py"):
        return importlib.import_module(home)
    path = Path(home).resolve()
    spec = importlib.util.spec_from_file_location(f"_diagnosed_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up by name
    spec.loader.exec_module(module)
    return module


def candidates(function: Callable[..., Any]) -> Iterator[Signature]:
    """The forms that a function's signature allows, the likeliest first."""
    names = _required(function)
    roles = tuple(_role(name) for name in names)
    unknown = [name for name, role in zip(names, roles, strict=True) if role is None]
    if unknown or not any(role in ("q", "k", "x") for role in roles):
        # Names say nothing: take the arguments in the order that transformers made customary.
        guesses = [guess for guess in _CUSTOMARY if len(guess) == len(names)]
    else:
        guesses = [tuple(str(role) for role in roles)]
        if not set(roles) & {"cos", "freqs_cis", "angles", "positions"}:
            more = _optional(function)
            names += tuple(more)
            guesses = [(*guesses[0], *more.values()), guesses[0]] if more else guesses
        if "angles" in roles:
            guesses.append(tuple("freqs_cis" if role == "angles" else role for role in guesses[0]))
    layouts: tuple[Layout, ...] = ("(batch, heads, seq, head_dim)", "(batch, seq, heads, head_dim)")
    for guess in guesses:
        for table in _tables(guess):
            for layout in layouts:
                for shape in _position_shapes(guess):
                    yield Signature(guess, layout, table, names[: len(guess)], shape)


def _position_shapes(roles: tuple[str, ...]) -> tuple[Literal["(batch, seq)", "(seq,)"], ...]:
    if "positions" not in roles:
        return ("(batch, seq)",)
    return ("(batch, seq)", "(seq,)") if "q" in roles else ("(seq,)",)


def _tables(roles: tuple[str, ...]) -> tuple[str, ...]:
    if "cos" in roles:
        return (
            "(batch, seq, head_dim), halves repeated",
            "(batch, seq, head_dim / 2)",
            "(seq, head_dim), halves repeated",
            "(seq, head_dim / 2)",
            "(batch, 1, seq, head_dim), halves repeated",
            "(batch, seq, head_dim), pairs repeated",
        )
    if "freqs_cis" in roles:
        return ("(batch, seq, head_dim / 2), complex", "(seq, head_dim / 2), complex")
    if "angles" in roles:
        return (
            "(seq, head_dim), pairs repeated",
            "(seq, head_dim), halves repeated",
            "(batch, seq, head_dim), pairs repeated",
            "(batch, seq, head_dim), halves repeated",
            "(seq, head_dim / 2)",
        )
    return ("none",)


def call(function: Callable[..., Any], form: Signature, arguments: list[Any]) -> tuple[Tensor, Tensor | None]:
    """The function's image of its query (or x), and of its key if it has one, as ``(batch, heads, seq, head_dim)``."""
    optional = [name for name in form.names if name not in _required(function)]
    positional = len(form.names) - len(optional)
    with torch.no_grad():
        result = function(*arguments[:positional], **dict(zip(optional, arguments[positional:], strict=True)))
    outputs = [result] if isinstance(result, (Tensor, np.ndarray)) else list(result)
    outputs = [torch.from_numpy(output) if isinstance(output, np.ndarray) else output for output in outputs]
    swapped = not form.layout.startswith("(batch, heads")
    rotated = [output.transpose(1, 2) if swapped else output for output in outputs[:2] if isinstance(output, Tensor)]
    given = arguments[next(i for i, role in enumerate(form.roles) if role in ("q", "k", "x"))]
    if not rotated or any(output.shape != given.shape for output in outputs[: len(rotated)]):
        raise ValueError(f"the output does not have the shape of the input, {tuple(given.shape)}")
    return rotated[0], rotated[1] if "k" in form.roles and len(rotated) > 1 else None


def arguments_for(form: Signature, x: Tensor, positions: Tensor, angle: Tensor) -> list[Any]:
    """What to call the function with.

    Args:
        form: as found.
        x: the probe ``(batch, heads, seq, head_dim)``; the function gets copies.
        positions: ``(seq,)``.
        angle: ``(seq, head_dim / 2)``, float64, for the tables that it wants to be given.
    """
    given = x if form.layout.startswith("(batch, heads") else x.transpose(1, 2)
    arguments: list[Any] = []
    for role in form.roles:
        if role in ("q", "k", "x"):
            arguments.append(given.clone())
        elif role == "positions":
            arguments.append(positions if form.positions == "(seq,)" else positions[None].expand(x.shape[0], -1))
        else:
            arguments.append(_table(role, form.table, angle, x))
    return arguments


def _table(role: str, table: str, angle: Tensor, x: Tensor) -> Tensor:
    if "halves repeated" in table:
        angle = torch.cat((angle, angle), dim=-1)
    elif "pairs repeated" in table:
        angle = angle.repeat_interleave(2, dim=-1)
    if table.startswith("(batch, 1"):
        angle = angle[None, None]
    elif table.startswith("(batch"):
        angle = angle[None]
    if role == "freqs_cis":
        return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    value = {"cos": angle.cos, "sin": angle.sin, "angles": angle.clone}[role]()
    return value.to(torch.float32 if role == "angles" else x.dtype)


def _required(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind in positional)


def _optional(function: Callable[..., Any]) -> dict[str, str]:
    """Parameters with defaults that a rotation is likely to need: names and roles."""
    required = _required(function)
    found = {name: _role(name) for name in inspect.signature(function).parameters if name not in required}
    return {name: role for name, role in found.items() if role in ("k", "cos", "sin", "freqs_cis", "positions")}


def _role(name: str) -> str | None:
    return next((role for role, names in _ROLES.items() if name.lower() in names), None)
