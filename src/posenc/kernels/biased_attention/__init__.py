"""Attention with something added to its scores, in linear memory. Private; :func:`posenc.attention` is the door."""
