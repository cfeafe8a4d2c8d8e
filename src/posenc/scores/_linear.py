"""The linear layers of encodings, whose weights the encodings read themselves."""

from torch import nn


class ExactLinear(nn.Linear):
    """``nn.Linear`` for an encoding that computes with its weights, in float32 or above.

    It is a type of its own because ``torch.ao.quantization.quantize_dynamic`` exchanges the layers of the types that
    it is given, which are ``nn.Linear`` as a rule, for layers whose weights cannot be read.
    """
