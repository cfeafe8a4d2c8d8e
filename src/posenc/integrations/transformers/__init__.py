"""Hugging Face configs, read into encodings and written back, and live models changed.

transformers itself is needed for live models alone.
"""

from posenc.integrations.transformers.accelerating import accelerate as accelerate
from posenc.integrations.transformers.description import Description as Description
from posenc.integrations.transformers.description import LayerGroup as LayerGroup
from posenc.integrations.transformers.description import describe as describe
from posenc.integrations.transformers.extending import extend as extend
from posenc.integrations.transformers.patch import Patch as Patch
from posenc.integrations.transformers.replacing import replace as replace
from posenc.integrations.transformers.writing import to_transformers as to_transformers
