"""Layers for your own models. They call the three hooks of an encoding in the right places.

>>> import torch
>>> from posenc import RoPE, nn
>>> model = nn.Transformer(dim=64, num_heads=4, num_layers=2, encoding=RoPE(head_dim=16), causal=True)
>>> model(torch.randn(1, 10, 64)).shape
torch.Size([1, 10, 64])
"""

from posenc.nn.attention import Attention as Attention
from posenc.nn.block import Block as Block
from posenc.nn.cache import Cache as Cache
from posenc.nn.cache import SlidingCache as SlidingCache
from posenc.nn.cache import StaticCache as StaticCache
from posenc.nn.transformer import Transformer as Transformer
