"""What each encoding writes after the held-out text."""

import json

import numpy as np
import pytest
import torch

from posenc.lab.compare.text import continuation, report
from posenc.lab.run import folder as runs


class Next(torch.nn.Module):
    """Always writes the token after the last one."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return 100 * torch.nn.functional.one_hot((tokens + 1) % 256, 256).float()


def test_it_begins_with_half_of_the_trained_length_and_goes_to_four_times_of_it() -> None:
    text = torch.arange(50, 100, dtype=torch.uint8)
    written = continuation.write(Next(), text, length=8, max_positions=None, precision="float32")
    assert written == list(range(50, 50 + 32))
    cut = continuation.write(Next(), text, length=8, max_positions=10, precision="float32")
    assert cut == list(range(50, 60))


def test_what_is_drawn_follows_the_shares_and_is_drawn_again_the_same() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            shares = torch.tensor([0.5, 0.3, 0.2]).log() * continuation.TEMPERATURE
            return shares.expand(*tokens.shape, 3)

    text = torch.zeros(9, dtype=torch.uint8)
    written = continuation.write(Fixed(), text, length=1000, max_positions=None, precision="float32")
    assert written == continuation.write(Fixed(), text, length=1000, max_positions=None, precision="float32")
    shares = np.bincount(written[9:]) / len(written[9:])
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_the_page_shows_it_and_marks_what_is_past_the_trained_length(prepare, finish_trial) -> None:
    run = prepare("none", "learned")
    for label in ("none", "learned"):
        assert finish_trial(run / f"{label}-seed0").status == "done"
    page = report.write(run).read_text()
    assert page.count('<span class="past">') == 3  # the note, and one for each encoding
    results = json.loads((run / runs.RESULTS).read_text())
    none, learned = (entry["continuation"] for entry in results["encodings"])
    text = torch.tensor(list(b"".join(part.encode() for part in [none["given"]])))
    assert torch.equal(text, runs.load_tensors(run / runs.TOKENS)["validation"][:4].long())
    assert learned["past"] == ""  # its table ends at the trained length
    assert none["past"]
    assert none["within"]
