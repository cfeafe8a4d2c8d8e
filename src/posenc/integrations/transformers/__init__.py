"""Hugging Face configs, read into encodings and written back. transformers itself is not needed for it."""

from posenc.integrations.transformers.description import Description as Description
from posenc.integrations.transformers.description import LayerGroup as LayerGroup
from posenc.integrations.transformers.description import describe as describe
from posenc.integrations.transformers.writing import to_transformers as to_transformers
