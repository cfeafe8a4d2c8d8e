"""Place 1: a code is added to each embedding, once."""
