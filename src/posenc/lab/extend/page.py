"""The report of a run of ``posenc extend`` as one page that needs nothing else."""

from pathlib import Path

from posenc.lab.drawing import html
from posenc.lab.extend import pictures
from posenc.lab.extend.table import bin_name, lowest, nats_text, retrieval_rows, rows, short, value_text
from posenc.lab.extend.verdict import BLOCK, HELD
from posenc.lab.run.config import Data


def page(results: Data) -> str:
    """The page, from what is in ``results.json``."""
    config = results["config"]
    passes = [pictures.by_position(results), pictures.above_home(results)] if rows(results) else []
    lengths, retrieval = retrieval_rows(results)
    report = (results["tuned"] or {}).get("report") or {}
    return html.page(
        Path(__file__).with_name("page.html"),
        title=f"{config['label']} at {config['length']:,} tokens",
        results=results,
        rows=rows(results),
        best=lowest(results),
        palette=pictures.hues(results),
        inside=sum(1 for first, _ in results["bins"] if first < config["trained_length"]),
        passes=[picture for picture in passes if picture is not None],
        probes=[picture for picture in (pictures.heatmap(results), pictures.trust(results)) if picture is not None],
        lengths=lengths,
        retrieval=retrieval,
        tuning={key: html.flat(value) for key, value in report.items() if key != "history"},
        about=_about(results),
        held=HELD,
        block=BLOCK,
        bin_name=bin_name,
        nats_text=nats_text,
        short=short,
        value_text=value_text,
    )


def _about(results: Data) -> dict[str, object]:
    config = results["config"]
    shown: dict[str, object] = {"posenc": results["posenc"]}
    left_out = ("format", "kind", "posenc", "text")
    shown |= {key: html.flat(value) for key, value in config.items() if key not in left_out}
    shown["text"] = html.files(config["text"])
    for key, value in results["environment"].items():
        shown.setdefault(key, html.flat(value))
    return shown
