"""Place 3, in each layer, after the cache: score(i, j) <- score(i, j) + bias(i, j)."""
