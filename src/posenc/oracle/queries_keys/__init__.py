"""Place 2, in each layer, before the cache: q(i) <- R(i) q(i) and k(j) <- R(j) k(j)."""
