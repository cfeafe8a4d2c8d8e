"""The report of a run of ``posenc extend`` as one page that needs nothing else."""

from pathlib import Path

from posenc.lab.drawing import html
from posenc.lab.drawing.words import HELD
from posenc.lab.extend import pictures
from posenc.lab.extend.results import Results
from posenc.lab.extend.table import bin_name, lowest, nats_text, retrieval_rows, short, value_text
from posenc.lab.extend.verdict import BLOCK


def page(results: Results) -> str:
    """The page, from what is in ``results.json``."""
    config = results.config
    lengths, retrieval = retrieval_rows(results)
    report = (results.tuned and results.tuned.report) or {}
    return html.page(
        Path(__file__).with_name("page.html"),
        title=f"{config.label} at {config.length:,} tokens",
        results=results,
        best=lowest(results),
        palette=pictures.hues(results),
        inside=sum(1 for first, _ in results.bins if first < config.trained_length),
        passes=pictures.of_passes(results),
        probes=pictures.of_probes(results),
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


def _about(results: Results) -> dict[str, str]:
    left_out = ("format", "kind", "text")
    about = {key: html.flat(value) for key, value in results.config.to_dict().items() if key not in left_out}
    about["text"] = html.files(results.config.text)
    return about | {key: html.flat(value) for key, value in results.environment.items() if key not in about}
