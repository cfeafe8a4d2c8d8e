"""Does posenc read every image model of the installed timm as its own modules compute?

``python -m tools.census.timm_models > docs/census_timm.md``, some minutes of one core. Names of ``timm.list_models()``
that differ in sizes alone (tiny, patch16, 224) are a series. The smallest of each is built without memory and
described, and each kind of positional module in it is given random weights and compared with what posenc says it is. A
file of timm that names no positional module is not built. ``--all`` builds every model, ``--only 'vit_.*'`` takes some.
"""

import argparse
import copy
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posenc import AxialRoPE, Compose, Learned, MixedRoPE, MRoPE, NoPE
from posenc.embeddings import LearnedGrid
from posenc.encoding import Encoding
from posenc.integrations.timm import describe
from posenc.integrations.timm.modules import READERS, reader_of
from posenc.integrations.timm.tables import Row
from posenc.integrations.transformers.live.sites import find_sites
from posenc.lab.checkpoint.timm_library import import_timm
from posenc.scores import DecomposedBias, LeViTBias, SwinBias

#: Allowed differences: float32 costs the model's own angles this much of themselves, and its sums this much.
TOLERANCE = 2e-6
GRID = (5, 7)


@dataclass
class Kind:
    """One class of modules with one kind of encoding."""

    models: set[str] = field(default_factory=set)
    status: str = ""
    compared: str = ""
    error: float = 0.0


@dataclass
class Family:
    """One class of models."""

    models: list[str] = field(default_factory=list)
    encodings: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    built: int = 0
    resized: bool = False
    accelerated: set[str] = field(default_factory=set)


_SIZES = (
    *(
        "atto",
        "femto",
        "pico",
        "nano",
        "xxs",
        "xxt",
        "xs",
        "tiny",
        "t",
        "mini",
        "micro",
        "wee",
        "pwee",
        "ti",
        "xxl",
        "xl",
    ),
    *("little", "dlittle", "small", "s", "medium", "mediumd", "m", "betwixt", "base", "b", "large", "l", "huge", "h"),
    *("giant", "giantopt", "gigantic", "g", "enormous", "plus", "x", "n"),
)


def series_of(name: str) -> str:
    """The name without the parts that say a size."""
    parts = [part for part in re.sub(r"\d+", "", name).split("_") if part not in (*_SIZES, "patch", "so", "so_m", "")]
    return "_".join(parts)


def smallness(name: str) -> tuple[int, int, str]:
    """Sorts the small sizes of a series to the front."""
    first = next((place for place, size in enumerate(_SIZES) if size in re.sub(r"\d+", "", name).split("_")), 99)
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return first, sum(numbers), name


def series(names: list[str]) -> dict[tuple[str, str], list[str]]:
    """Names by (file of timm, series), those of files with positional modules alone, the smallest first."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        found[file_of(name), series_of(name)].append(name)
    return {key: sorted(members, key=smallness) for key, members in found.items()}


def census(
    only: str | None, every: bool
) -> tuple[dict[tuple[str, str, str], Kind], dict[str, Family], dict[str, list[str]]]:
    """Kinds of modules by (class, encoding, reason); families by the class of models; names by file without any."""
    timm = import_timm()
    kinds: dict[tuple[str, str, str], Kind] = defaultdict(Kind)
    families: dict[str, Family] = defaultdict(Family)
    without: dict[str, list[str]] = defaultdict(list)
    seen: dict[str, tuple[str, float]] = {}
    names = [name for name in timm.list_models() if only is None or re.fullmatch(only, name)]
    groups = {(name, ""): [name] for name in names} if every else series(names)
    for members in groups.values():
        name = members[0]
        if not every and not has_positional_modules(file_of(name)):
            without[file_of(name)] += members
            continue
        # EfficientFormer's index of its biases is a buffer that its constructor alone fills in.
        with torch.device("cpu" if name.startswith("efficientformer_") else "meta"):
            model = timm.create_model(name, pretrained=False)
        family = families[f"{type(model).__module__.rpartition('.')[2]}.{type(model).__name__}"]
        family.models += members
        family.built += 1
        family.resized = hasattr(model, "set_input_size")
        note_description(model, members, family)
        for module in model.modules():
            reader = reader_of(module)
            for row in () if reader is None else reader(module, model):
                what = "" if row.encoding is None else in_short(row.encoding)
                kind = kinds[type(module).__name__, what, "" if what else "; ".join(row.notes)]
                kind.models.update(members)
                compare_once(kind, module, row, seen)
        print(f"{sum(family.built for family in families.values())} of {len(groups)}: {name}", file=sys.stderr)
    return kinds, families, without


def file_of(name: str) -> str:
    """The file of timm that makes the model."""
    from timm import model_entrypoint

    return str(model_entrypoint(name).__module__.rpartition(".")[2])


def has_positional_modules(file: str) -> bool:
    """Does the file name one, or a way to choose an attention?"""
    text = Path(sys.modules[f"timm.models.{file}"].__file__ or "").read_text()
    wanted = {name.rpartition(".")[2] for name in READERS} | {"create_attn", "get_attn", "attn_layer"}
    return bool(re.search(rf"\b({'|'.join(sorted(wanted))})\b", text))


def note_description(model: nn.Module, names: list[str], family: Family) -> None:
    """What describe says of the whole."""
    try:
        found = describe(model)
    except ValueError:  # no attention and no positions
        family.encodings.add("")
        return
    family.encodings |= {in_short(group.encoding) for group in found}
    family.refused |= {text.partition(": ")[2] for text in found.unread}
    try:
        find_sites(model, re.compile(r"^apply_rot_embed_cat$"))
    except ValueError:
        return
    if any(type(module).__name__.startswith("Rotary") for module in model.modules()):
        family.accelerated.update(names)


def compare_once(kind: Kind, module: Any, row: Row, seen: dict[str, tuple[str, float]]) -> None:
    """Compare a module that is not as those before it."""
    if row.encoding is None:
        kind.status = "refused"
        return
    key = f"{type(module).__name__} {row.encoding.to_dict()} {row.positions} {row.notes}"
    if key not in seen:
        try:
            seen[key] = compared(module, row)
        except Exception as trouble:  # a census goes on
            seen[key] = f"nothing: {type(trouble).__name__}: {str(trouble)[:80]}".replace("\n", " "), 9.0
    what, error = seen[key]
    kind.compared, kind.error = what, max(kind.error, error)
    kind.status = "agreed" if kind.error <= 1 else "differs"


def compared(module: Any, row: Row) -> tuple[str, float]:
    """What was compared, and the largest difference as a share of what is allowed."""
    encoding: Any = row.encoding
    if isinstance(encoding, (LearnedGrid, Learned)):
        table = getattr(module, row.label)
        rows, most = table.numel() // encoding.dim, encoding.table.shape[0]
        return "rows and width of the table", 0.0 if rows == most and encoding.dim in table.shape else 2.0
    real = filled(module)
    if isinstance(encoding, (AxialRoPE, MRoPE, MixedRoPE)):
        return compared_rotation(real, encoding)
    if isinstance(encoding, DecomposedBias):
        holder, names = (
            (module, ("rel_pos_h", "rel_pos_w")) if hasattr(module, "rel_pos_h") else
            (module.pos_embed, ("height_rel", "width_rel"))
        )  # fmt: skip
        shapes = tuple(tuple(getattr(holder, name).shape) for name in names)
        same = shapes == (tuple(encoding.rows.shape), tuple(encoding.columns.shape))
        return "shapes of both tables", 0.0 if same else 2.0
    places = torch.arange(encoding.window[0] * encoding.window[1] + getattr(encoding, "prefix", 0))
    ours = type(encoding).from_dict(encoding.to_dict())
    with torch.no_grad():
        if isinstance(encoding, LeViTBias):
            ours.table.copy_(real.attention_biases)
            theirs = real.attention_biases[:, real.attention_bias_idxs]
            every = round((len(places) / theirs.shape[1]) ** 0.5)
            asking = places.view(encoding.window)[::every, ::every].flatten()
            return "biases of all pairs of places", float((ours.bias(asking, places) - theirs).abs().max() / 1e-5)
        if isinstance(encoding, SwinBias):
            table = real.relative_position_bias_table
            ours.table.copy_(table if table.ndim == 2 else table.flip(1, 2).flatten(1).T)
        else:
            network = next(getattr(real, name) for name in ("mlp", "meta_mlp", "cpb_mlp") if hasattr(real, name))
            hidden, out = (network.fc1, network.fc2) if hasattr(network, "fc1") else (network[0], network[2])
            ours.hidden.load_state_dict(hidden.state_dict())
            ours.out.load_state_dict(out.state_dict())
        theirs = their_bias(real)
        theirs = theirs[..., -len(places) :, -len(places) :]  # tokens before the patches have none
        return "biases of all pairs of places", float((ours.bias(places, places) - theirs).abs().max() / 1e-5)


def filled(module: nn.Module) -> Any:
    """The module on the CPU, with random weights and the buffers that its own code fills in."""
    generator = torch.Generator().manual_seed(0)
    real: Any = copy.deepcopy(module)
    if any(x.is_meta for x in (*real.parameters(), *real.buffers())):
        real.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in real.parameters():
            parameter.normal_(0, 0.5, generator=generator)
        for part in real.modules():
            again: Any = getattr(part, "reset_parameters", None)
            if part is not real and again is not None and list(part.parameters(recurse=False)):
                again()
        for name in ("init_non_persistent_buffers", "_init_buffers"):
            if hasattr(real, name):
                getattr(real, name)()
                break
    real.eval()  # LeViT's gives nothing back
    return real


def their_bias(module: Any) -> Tensor:
    """The bias of a module of timm, (heads, places, places)."""
    for name in ("get_bias", "_get_rel_pos_bias", "_relative_positional_encodings"):
        if hasattr(module, name):
            found: Tensor = getattr(module, name)()
            return found[0] if found.ndim == 4 else found
    table = module.cpb_mlp(module.relative_coords_table).view(-1, module.num_heads)
    area = module.window_size[0] * module.window_size[1]
    offsets = table[module.relative_position_index.view(-1)].view(area, area, -1)
    biases: Tensor = 16 * offsets.permute(2, 0, 1).sigmoid()
    return biases


def compared_rotation(module: Any, encoding: Any) -> tuple[str, float]:
    """The module's own tables, applied by timm's own function, on a grid that is no square."""
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat
    from timm.models import gemma4_vit

    turn: Any = gemma4_vit.apply_multidimensional_rope
    width = encoding.head_dim
    places = coordinates(module)
    basis = torch.eye(width)[:, None, None].expand(width, 1, len(places), width).contiguous()
    if type(module).__name__.startswith("Gemma4"):
        given = basis[:, 0][:, :, None]
        theirs = turn(given, *module(given, places.flip(-1)[None]), unsqueeze_dim=2)[:, :, 0]
        ours = encoding.rotate(basis, places[None])[:, 0]
        return "rotations of all patches", difference(ours, theirs, places, encoding)
    if hasattr(module, "_use_cached_embed"):
        module._use_cached_embed = False
    tables = module.get_embed(shape=list(GRID))
    half = bool(getattr(module, "rotate_half", isinstance(encoding, MRoPE)))
    if isinstance(encoding, MRoPE):
        places = torch.cat((torch.zeros(len(places), 1), places), dim=-1)
    if isinstance(encoding, MixedRoPE):
        worst, order = 0.0, [1, 0] if module.grid_indexing == "xy" else [0, 1]
        for block, of_block in enumerate(tables):
            one = MixedRoPE.from_dict(encoding.to_dict())
            one.load_state_dict({"rates": module.freqs[:, block]})
            heads = basis.expand(-1, one.num_heads, -1, -1)
            theirs = apply_rot_embed_cat(heads, of_block)
            worst = max(worst, difference(one.rotate(heads, places[None, :, order]), theirs, places, one))
        return "rotations of all patches in all blocks", worst
    theirs = apply_rot_embed_cat(basis, tables, half=half)
    return "rotations of all patches", difference(encoding.rotate(basis, places[None]), theirs, places, encoding)


def coordinates(module: Any) -> Tensor:
    """Where a rotation of timm puts the patches of a grid, written here anew, (patches, 2), rows first."""
    kind = getattr(module, "grid_type", "centered" if hasattr(module, "normalize_coords") else "index")
    offset, reference = getattr(module, "grid_offset", 0.0), getattr(module, "ref_feat_shape", None)
    axes = []
    for axis, side in enumerate(GRID):
        count = torch.arange(side, dtype=torch.float64)
        if kind == "centered":
            least = {"max": max(GRID), "min": min(GRID), "separate": side}[module.normalize_coords]
            count = 2 * (count + 0.5 + offset) / least - 1
        elif kind == "pixel":
            count = 2 * count / (side - 1) - 1
        else:
            count = count + offset
        axes.append(count * reference[axis] / side if reference is not None and kind != "centered" else count)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 2)


def difference(ours: Tensor, theirs: Tensor, places: Tensor, encoding: Any) -> float:
    """The largest difference as a share of what float32 costs angles of this size."""
    angle = encoding.phases(places[None].expand(1, -1, -1))[0].abs().max()
    return float((ours - theirs).abs().max() / (TOLERANCE * (1 + angle)))


def in_short(encoding: Encoding) -> str:
    """The encoding's name, and its rule."""
    parts = encoding.parts if isinstance(encoding, Compose) else (encoding,)
    names = []
    for part in parts:
        rule = getattr(part, "frequencies", None)
        layout = getattr(part, "layout", "")
        about = ", ".join(word for word in (type(rule).__name__ if rule else "", layout if rule else "") if word)
        about = about if isinstance(layout, str) else type(rule).__name__
        names.append(type(part).__name__ + (f" ({about})" if rule is not None else ""))
    return " and ".join("none" if name == NoPE.__name__ else name for name in names)


def lines(
    kinds: dict[tuple[str, str, str], Kind], families: dict[str, Family], others: dict[str, list[str]]
) -> Iterator[str]:
    """The page."""
    import timm

    models = sum(len(family.models) for family in families.values())
    described = {name for (_, what, _), kind in kinds.items() if what for name in kind.models}
    refused = {name for (_, what, _), kind in kinds.items() if not what for name in kind.models}
    skipped = sum(map(len, others.values()))
    built = sum(family.built for family in families.values())
    some, none = len(described & refused), len(refused - described)
    yield from (
        "# Census of timm",
        "",
        "This table shows which encodings `posenc.integrations.timm.describe` finds in the image models of the",
        "installed timm. Models whose names differ only in sizes form a series; one model of each series is built on",
        "the meta device. Each kind of positional module gets random weights and is compared with the encoding that",
        "posenc describes; of tables and of `DecomposedBias` only shapes are compared. Made by",
        "`python -m tools.census.timm_models`.",
        "",
        f"timm {timm.__version__}: {models + skipped} models. {models} of them are in files that name positional",
        f"modules: {built} series of {len(families)} classes. {len(described - refused)} of these models have",
        f"encodings that posenc expresses completely, {some} have one that it expresses and one that it does not,",
        f"{none} have none that it expresses, and {models - len(described | refused)} have no positional module:",
        f"convolutions, mixers, and attention without positions. {skipped} models are in files without",
        "positional modules.",
        "",
        f"The error is divided by the allowed error: {TOLERANCE:g} x (1 + angle) for rotations, 1e-5 for biases. At",
        "most 1 is agreement.",
    )
    for status, title in (
        ("differs", "Differs"),
        ("agreed", "Expressed, and agreed"),
        ("refused", "Not expressed, and why"),
    ):
        rows = [(key, kind) for key, kind in sorted(kinds.items()) if kind.status == status]
        if not rows:
            continue
        yield from ("", f"## {title} ({len(rows)})", "")
        if status == "refused":
            yield from ("| module | models | why | such as |", "| --- | ---: | --- | --- |")
        else:
            yield from (
                "| module | encoding | models | compared | error | such as |",
                "| --- | --- | ---: | --- | ---: | --- |",
            )
        for (module, what, why), kind in rows:
            first = f"`{min(kind.models)}`"
            if status == "refused":
                yield f"| {module} | {len(kind.models)} | {why} | {first} |"
            else:
                yield f"| {module} | {what} | {len(kind.models)} | {kind.compared} | {kind.error:.2g} | {first} |"
    yield from ("", f"## By class of models ({len(families)})", "")
    yield "`extend` takes classes with `set_input_size`, `accelerate` models that call timm's function of rotations."
    yield from (
        "",
        "| class | models | encodings | not expressed | extend | accelerate |",
        "| --- | ---: | --- | --- | --- | --- |",
    )
    for name, family in sorted(families.items()):
        if family.encodings <= {""} and not family.refused:
            continue
        sizes = "yes" if family.resized else "no"
        fast = f"{len(family.accelerated)}" if family.accelerated else ""
        cells = ("; ".join(sorted(family.encodings - {""})), "; ".join(sorted(family.refused)))
        yield f"| {name} | {len(family.models)} | {cells[0]} | {cells[1]} | {sizes} | {fast} |"
    without = sorted(name for name, family in families.items() if family.encodings <= {""} and not family.refused)
    yield from ("", f"Without attention and without positions ({len(without)} classes): {', '.join(without)}.")
    named = ", ".join(f"{file} ({len(names)})" for file, names in sorted(others.items()))
    if named:
        yield from ("", f"Files that name no positional module, and their models: {named}.")


def main(report: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a regular expression that names must match as a whole")
    parser.add_argument("--all", action="store_true", help="build every model, not one of each series")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    for line in lines(*census(given.only, given.all)):
        report(line)


if __name__ == "__main__":
    main()
