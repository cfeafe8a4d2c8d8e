"""Read the encodings of GGUF files, as llama.cpp runs them. Needs only the package gguf, and reads no weights."""

from posenc.integrations.gguf.description import describe as describe
from posenc.integrations.gguf.header import Header as Header
from posenc.integrations.gguf.header import Stored as Stored
from posenc.integrations.gguf.header import read_header as read_header
