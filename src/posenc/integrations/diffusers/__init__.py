"""Transformers of diffusers: images, videos and sounds.

diffusers itself is needed.
"""

from posenc.integrations.diffusers.live.accelerate import accelerate as accelerate
from posenc.integrations.patch import Patch as Patch
