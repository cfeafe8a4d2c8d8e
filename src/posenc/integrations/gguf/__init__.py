"""GGUF files, read as llama.cpp runs them: needs the package gguf, and neither transformers nor any weight."""

from posenc.integrations.gguf.description import describe as describe
from posenc.integrations.gguf.header import Header as Header
from posenc.integrations.gguf.header import Stored as Stored
from posenc.integrations.gguf.header import read_header as read_header
