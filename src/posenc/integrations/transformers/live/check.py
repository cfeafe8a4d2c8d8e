"""Does a live model rotate as its config says?"""

import copy
import math
import re
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posenc import MRoPE, RoPE
from posenc.frequencies import LearnedRates
from posenc.integrations.held import replaced_by
from posenc.integrations.transformers.description.description import LayerGroup
from posenc.integrations.transformers.description.model_types import COORDINATES, NEGATIVE
from posenc.integrations.transformers.description.reader import describe
from posenc.integrations.transformers.live import rebuild
from posenc.integrations.transformers.live.buffers import POSITIONS, difference, fits, is_table, numbers, table_modules
from posenc.integrations.transformers.live.coverage import layers_of, not_compared, rotation
from posenc.integrations.transformers.live.findings import Finding, Report, What, what_of
from posenc.integrations.transformers.live.lost_base import base_of_rates
from posenc.integrations.transformers.live.pretrained import pretrained
from posenc.integrations.transformers.live.sites import find_sites
from posenc.integrations.transformers.rotations.recognise import recognise

#: Rates may differ by this share of themselves: what float32 and another machine's power function cost.
_SHARE = 1e-5
#: Rates that were rounded to half precision are a finding when they turn a token by more than this, in radians.
_ANGLE = 0.05


def check(model: Any) -> Report:
    """Compare a live model with its config: rates, factors, softmax scales, pairing, tables and their lengths.

    There are two references. The first is a model that transformers builds from the present config on the meta device
    and fills in as in loading: it gives the value of each buffer and each scale. The second is :func:`describe`: it
    gives the rates, factor and pairing of each layer, so ``check`` also finds code that ignores a key of its config.
    ``check`` does not read the weights or run the model, so it does not see a bias of the scores (ALiBi, T5) or the
    numbers of a learned table. ``report.unchecked`` names every encoding of the model that was not compared.

    A table in bfloat16 or float16 is a finding if it changes an angle at the longest position by more than 0.05 rad:
    Llama's rates in bfloat16 are a finding (several radians at 8192 tokens); DINOv3's, whose coordinates end at 2 pi,
    are not.

    Args:
        model: a model of transformers, or one that wraps it (PEFT).

    Returns:
        A :class:`Report`; ``report.findings`` is empty if the model agrees with its config in all that was compared.

    Raises:
        TypeError: no model of transformers.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        ...                                      num_attention_heads=4, vocab_size=16))
        >>> check(model).findings
        ()
        >>> model.model.rotary_emb.inv_freq.mul_(0.5)[:2]
        tensor([0.5000, 0.1581])
        >>> found = check(model).findings[0]
        >>> found.module, found.what, found.text, found.angle_error
        ('model.rotary_emb', 'rates', 'inv_freq is 0.5 times what the config says', 1023.5)
    """
    found = _Check(pretrained(model, "check"))
    with base_of_rates(dict(found.model.named_modules()), found.configs) as bases:
        for name, base in bases.items():
            text = (
                f"the config has no rope_theta, which setting rope_scaling drops; compared with {base:g}, as it rotates"
            )
            found.findings.append(Finding(name, "rates", text))
        return found.report()


def warn_of_findings(model: nn.Module, function: str) -> None:
    """Warn if a model that is about to be changed does other than its config says."""
    report = check(model)
    if report.findings:
        more = f" (and {len(report.findings) - 1} more)" if len(report.findings) > 1 else ""
        warnings.warn(
            f"{function}: {type(model).__name__} did not rotate as its config says before this: {report.findings[0]}"
            f"{more}; check(model) lists everything.",
            stacklevel=3,
        )


class _Check:
    """One comparison of a model, with what it found so far."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.findings: list[Finding] = []
        self.checked: list[str] = []
        self.unchecked: list[str] = []
        self.described: tuple[LayerGroup, ...] = ()
        self.groups: list[tuple[LayerGroup, Any]] = []  # those that rotate, with the config of their part
        self.rated: set[int] = set()
        self.paired: set[int] = set()
        self.pairs_known = True
        self.configs: dict[int, Any] = {}
        for name, module in model.named_modules():  # its own, or that of the nearest module around it
            around = self.configs.get(id(model.get_submodule(name.rpartition(".")[0]))) if name else None
            self.configs[id(module)] = getattr(module, "config", None) or around

    def report(self) -> Report:
        """Compare everything."""
        self._describe()
        try:
            twin = rebuild.build(self.model)
        except Exception as error:  # whatever the constructor of a model raises
            self.unchecked.append(f"{type(self.model).__name__}: it cannot be built from its config ({_line(error)})")
        else:
            self._buffers(twin)
            self._attributes(twin)
            self._lengths(twin)
        self._rates()
        self._pairing()
        self.unchecked += dict.fromkeys(not_compared(self.described, self.rated, self.paired))
        model_type = str(getattr(self.model.config, "model_type", ""))
        return Report(model_type, tuple(self.findings), tuple(self.checked), tuple(self.unchecked))

    def _describe(self) -> None:
        """The rotary groups of layers, each with the config of its part."""
        encoding = replaced_by(self.model)
        if encoding is not None:
            name = type(encoding).__name__
            self.unchecked.append(f"the encoding: replace put {name} in place of the one that the config says")
            self.pairs_known = False
            return
        try:
            described = describe(self.model)
        except (ValueError, TypeError):
            self.pairs_known = False
            try:
                described = describe(self.model, pairing="half")  # which no rate depends on
            except (ValueError, TypeError) as error:
                self.unchecked.append(f"describe cannot read the config: {_line(error)}")
                return
        self.described = described.groups
        for group in self.described:
            if isinstance(rotation(group), (RoPE, MRoPE)):
                config = self.model.config
                for name in group.part.split(".") if group.part else ():
                    config = getattr(config, name, None)
                self.groups.append((group, config))

    def _groups_of(self, module: nn.Module) -> list[LayerGroup]:
        """The groups whose config a module has."""
        own: Any = self.configs.get(id(module))
        return [group for group, config in self.groups if own is not None and (own is config or _same(own, config))]

    def _turned_by(self, module: nn.Module) -> list[LayerGroup]:
        """The groups that a rotary module serves: of several bases (``layer_rope_theta``), those of its own."""
        own: Any = self.configs.get(id(module))
        if not getattr(own, "layer_rope_theta", None):
            return self._groups_of(module)
        base = (own.rope_parameters or {}).get("rope_theta")
        served = [group for group, config in self.groups if type(config) is type(own)]
        return [group for group in served if getattr(rotation(group).frequencies, "base", None) == base]

    def _reach(self, module: nn.Module, name: str) -> tuple[float, tuple[int, ...]]:
        """The largest position that the module was trained with, and its layers."""
        groups = self._groups_of(module)
        labelled = [group for group in groups if group.label and name.startswith(f"{group.label}_")] or groups
        if labelled:
            layers = tuple(sorted({layer for group in labelled for layer in group.layers}))
            return max((group.longest or group.trained_length or 4096) for group in labelled) - 1, layers
        own: Any = self.configs.get(id(module)) or self.model.config
        if "2 pi" in COORDINATES.get(str(getattr(own, "model_type", "")), ""):
            return 2 * math.pi, ()
        size, patch = getattr(own, "image_size", None), getattr(own, "patch_size", None)
        if isinstance(size, int) and isinstance(patch, int):
            return max(size // patch, 1), ()
        length = getattr(own, "max_position_embeddings", None)
        return (length - 1 if isinstance(length, int) else 127), ()

    def _buffers(self, twin: Any) -> None:
        """Tables that are computed and not stored, against those that loading fills in."""
        live = dict(self.model.named_modules())
        for name, fresh in table_modules(twin):
            module = live.get(name)
            if module is None:
                self.unchecked.append(f"{name}: transformers builds it, and the model has none")
                continue
            if unset := [key for key, buffer in module._buffers.items() if buffer is not None and buffer.is_meta]:
                self._found(module, name, "unset", f"{', '.join(unset)} is on the meta device and holds nothing")
                continue
            try:
                rebuild.fill_rates(twin, {name: fresh})
            except Exception as error:
                self.unchecked.append(f"{name}: {_line(error)}")
                continue
            before = len(self.findings)
            for key, wanted in fresh._buffers.items():
                if wanted is not None and is_table(fresh, key) and POSITIONS.search(f"{name}.{key}"):
                    self._buffer(module, name, key, wanted)
            if len(self.findings) == before:
                self.checked.append(f"{name}: the tables {', '.join(k for k in fresh._buffers if is_table(fresh, k))}")

    def _buffer(self, module: nn.Module, name: str, key: str, wanted: Tensor) -> None:
        found = module._buffers.get(key)
        if found is None:
            self._found(module, name, "rates", f"it has no {key}: {type(module).__name__} with other tables")
            return
        if found.shape != wanted.shape:
            got, right = tuple(found.shape), tuple(wanted.shape)
            self._found(module, name, "rates", f"{key} has the shape {got}, and the config says {right}")
            return
        values, right_values = numbers(found), numbers(wanted)
        if not np.isfinite(values).all():
            if np.array_equal(np.isfinite(values), np.isfinite(right_values)):
                return  # a mask of minus infinities
            self._found(module, name, "unset", f"{key} holds values that are no finite numbers")
            return
        far = np.abs(values - right_values)
        if (far <= _SHARE * np.abs(right_values) + 1e-12).all() or self._has_grown(module, key, values):
            return
        reach, _ = self._reach(module, key)
        error = float(far.max()) * reach if key.endswith("inv_freq") else None
        for dtype in (torch.bfloat16, torch.float16):
            rounded = numbers(wanted.to(dtype)) if wanted.dtype.is_floating_point else right_values
            unit = torch.finfo(dtype).eps
            if (np.abs(values - rounded) <= unit * np.abs(rounded) + 1e-12).all() and fits(values, dtype):
                text = f"{key} was rounded to {str(dtype).removeprefix('torch.')}"
                if error is None or error <= _ANGLE:
                    self.checked.append(f"{name}: {text}, which costs at most {error or float(far.max()):.2g} rad")
                else:
                    self._found(module, name, "rates", f"{text}: keep it in float32", error, key)
                return
        self._found(module, name, "rates", f"{key} {difference(values, right_values)}", error, key)

    def _has_grown(self, module: nn.Module, key: str, values: Any) -> bool:
        """Rules that depend on the length leave the rates of the last sequence behind."""
        lengths = [value for name, value in vars(module).items() if name.endswith("max_seq_len_cached")]
        for group in self._groups_of(module):
            rule = rotation(group).frequencies
            if rule.depends_on_length and not key.endswith("original_inv_freq"):
                for each in (*lengths, 2 * (group.longest or group.trained_length or 4096)):
                    rates = rule.inv_freq(rotation(group).rotary_dim, length=float(each))
                    if rates.shape == values.shape and np.allclose(values, rates, rtol=_SHARE, atol=0):
                        return True
        return False

    def _attributes(self, twin: Any) -> None:
        """Factors of cos and sin, softmax scales, and which layers rotate what."""
        live = dict(self.model.named_modules())
        scales: set[str] = set()
        for name, fresh in twin.named_modules():
            module = live.get(name)
            if module is None or type(module) is not type(fresh):
                continue
            for key, right in vars(fresh).items():
                found = vars(module).get(key, right)
                plain = isinstance(right, (int, float, str)) and isinstance(found, (int, float, str))
                what = what_of(key)
                if what is None or not plain:
                    continue
                scales.add(f"{type(module).__name__}.{key}")
                both = isinstance(right, (int, float)) and isinstance(found, (int, float))
                if found != right and not (both and math.isclose(found, right, rel_tol=1e-5)):
                    self._found(module, name, what, f"{key} is {_short(found)}, and the config says {_short(right)}")
        if scales and not any(finding.what in ("factor", "scale", "layers") for finding in self.findings):
            self.checked.append(f"scales and flags: {', '.join(sorted(scales))}")

    def _lengths(self, twin: Any) -> None:
        """Learned tables have the rows that the config says, and numbers in them."""
        live = dict(self.model.named_parameters())
        for name, fresh in twin.named_parameters():
            if fresh.ndim < 2 or not POSITIONS.search(name) or name not in live:
                continue
            found = live[name]
            owner, _, key = name.rpartition(".")
            module = self.model.get_submodule(owner)
            if not (isinstance(module, nn.Embedding) or re.search(r"pos\w*emb|embed\w*pos", key)):
                continue
            if found.is_meta:
                self._found(module, name, "unset", "it is on the meta device and holds nothing")
            elif found.shape != fresh.shape:
                got, right = tuple(found.shape), tuple(fresh.shape)
                self._found(module, name, "length", f"the table has the shape {got}, and the config says {right}")
            else:
                self.checked.append(f"{name}: a table of the shape {tuple(fresh.shape)}")

    def _rates(self) -> None:
        """The rule that the config says, by describe, against what the modules keep and what they make of it."""
        for name, module in rebuild.rotary_modules(self.model).items():
            if any(finding.module == name for finding in self.findings):
                self.rated |= {id(group) for group in self._turned_by(module)}
                continue
            for group in self._turned_by(module):
                rule = rotation(group).frequencies
                if isinstance(rule, LearnedRates) or rule.depends_on_length:
                    continue
                width = rotation(group).rotary_dim
                own = f"{group.label}_inv_freq" if f"{group.label}_inv_freq" in module._buffers else "inv_freq"
                rates, wanted = module._buffers.get(own), np.abs(rule.inv_freq(width))
                if rates is None or rates.is_meta:
                    continue
                values = np.abs(numbers(rates))
                if isinstance(rotation(group), MRoPE):  # whose pairs may be sorted by their coordinate
                    values, wanted = np.sort(values), np.sort(wanted)
                self.rated.add(id(group))
                if values.shape != wanted.shape:
                    self.unchecked.append(f"{name}: {own} has {values.size} rates, describe says {wanted.size}")
                    continue
                reach = (group.longest or group.trained_length or 4096) - 1
                error = float(np.abs(values - wanted).max()) * reach
                coarse = rates.dtype in (torch.bfloat16, torch.float16) or fits(values, torch.bfloat16)
                if not coarse and not np.allclose(values, wanted, rtol=_SHARE, atol=1e-12):
                    text = f"{own} {difference(values, wanted)}: {rule} is not what its code makes of its config"
                    self._found(module, name, "rates", text, error, own)
                elif not coarse and not self._turns(module, group, reach):
                    text = f"its cos and sin are not those of {rule}"
                    self._found(module, name, "tables", text)
                else:
                    verb = "rotates" if len(group.layers) == 1 else "rotate"
                    self.checked.append(f"{name}: {layers_of(group.layers)} {verb} by {rule}")

    def _turns(self, module: nn.Module, group: LayerGroup, reach: int) -> bool:
        """Does the module make the cosines and sines of the rule? True too if it cannot be asked."""
        turning = rotation(group)
        if turning.frequencies.needs_whole_head or "forward" in vars(module):
            return True
        asked = copy.deepcopy(module).cpu()
        positions = torch.tensor([0, 1, reach // 2, reach], device="cpu")
        options = {"layer_type": group.label} if f"{group.label}_inv_freq" in module._buffers else {}
        tables = rebuild.tables_of(asked, positions, turning.rotary_dim, **options)
        if tables is None or turning.frequencies.inv_freq(turning.rotary_dim)[0] < 0 or isinstance(turning, MRoPE):
            return True
        return rebuild.is_turned(tables, positions, turning.frequencies, turning.rotary_dim, reach)

    def _pairing(self) -> None:
        """What the attention calls to rotate, against the pairing that the config means."""
        if not self.pairs_known or not self.groups:
            return
        try:
            sites = find_sites(self.model)
        except ValueError as error:
            self.unchecked.append(f"pairing: {_line(error)}")
            return
        seen: dict[Any, Any] = {}
        agreed: set[str] = set()
        for site in sites:
            if not type(site.module).__name__.endswith("Attention"):
                continue  # an indexer, which chooses keys by a rotation of its own
            groups = self._groups_of(site.module)
            pairings = {rotation(group).pairing for group in groups}
            if len(pairings) != 1:
                continue
            for _, function in site.functions:
                if function not in seen:
                    try:
                        seen[function] = recognise(function)
                    except ValueError:
                        seen[function] = None
            forms = [seen[function] for _, function in site.functions if seen[function] is not None]
            if len({form.pairing for form in forms}) != 1:
                continue  # it chooses as it runs
            self.paired |= {id(group) for group in groups}
            form, right = forms[0], pairings.pop()
            inverse = str(getattr(self.configs[id(site.module)], "model_type", "")) in NEGATIVE
            if form.pairing != right or form.inverse != inverse:
                sign = "-" if form.inverse else "+"
                text = (
                    f"{site.functions[0][0]} turns pairs by {form.pairing!r} and {sign}angle, and the config means "
                    f"{right!r} and {'-' if inverse else '+'}angle"
                )
                self._found(site.module, site.name, "pairing", text)
            else:
                agreed.add(f"{type(site.module).__name__} rotates pairs by {right!r}")
        self.checked += sorted(agreed)

    def _found(
        self, module: nn.Module, name: str, what: What, text: str, error: float | None = None, key: str = ""
    ) -> None:
        reach, layers = self._reach(module, key)
        index = getattr(module, "layer_idx", None)
        layers = (index,) if isinstance(index, int) else layers
        self.findings.append(Finding(name, what, text, layers, error, reach))


def _same(a: Any, b: Any) -> bool:
    """Is one config a copy of the other?"""
    if type(a) is not type(b):
        return False
    return bool(vars(a).get("rope_parameters") == vars(b).get("rope_parameters"))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _line(error: object) -> str:
    return (str(error).splitlines() or [""])[0][:200]
