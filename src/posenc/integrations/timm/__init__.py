"""Image models of timm: read their positional encodings, and change live models."""

from posenc.integrations.patch import Patch as Patch
from posenc.integrations.timm.accelerate import accelerate as accelerate
from posenc.integrations.timm.description import describe as describe
from posenc.integrations.timm.extend import extend as extend
from posenc.integrations.timm.replace import replace as replace
