"""Place 1, once, before the first block: x(p) <- x(p) + code(p)."""
