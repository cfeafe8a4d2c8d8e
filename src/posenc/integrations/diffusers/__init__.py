"""Transformers of diffusers: images, videos and sounds.

diffusers itself is needed.
"""

from posenc.integrations.diffusers.description.description import Description as Description
from posenc.integrations.diffusers.description.description import Part as Part
from posenc.integrations.diffusers.description.reader import describe as describe
from posenc.integrations.diffusers.live.accelerate import accelerate as accelerate
from posenc.integrations.diffusers.live.check import check as check
from posenc.integrations.diffusers.live.extend import extend as extend
from posenc.integrations.patch import Patch as Patch
