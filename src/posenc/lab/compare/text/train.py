"""Training of a decoder on text."""

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from posenc.lab.compare.stepwise import Stepwise
from posenc.lab.compare.text.config import Precision, TrainConfig
from posenc.lab.compare.text.decoder import Decoder
from posenc.lab.run.schedule import batch_at


class Training(Stepwise[Decoder, TrainConfig]):
    """A decoder that learns text; its loss is in nats per token."""

    rate = "tokens_per_second"

    def __init__(
        self, model: Decoder, tokens: Int[Tensor, " text"], config: TrainConfig, *, seed: int, precision: Precision
    ) -> None:
        self.tokens, self.seed, self.precision, self.device = tokens, seed, precision, tokens.device
        super().__init__(model, config, self.device)
        # On a GPU, kernel launches dominate at these sizes, and the compiler fuses them; on a CPU it takes a minute.
        self._forward = torch.compile(model) if self.device.type == "cuda" else model

    def loss(self) -> Tensor:
        config = self.config
        windows = batch_at(self.tokens, seed=self.seed, step=self.step, batch=config.batch, length=config.length)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self._forward(windows[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())

    @property
    def per_step(self) -> int:
        """Tokens."""
        return self.config.batch * self.config.length
