"""The reference: every encoding as its paper writes it, in NumPy and float64.

Nothing here is fast. Each function body is the formula with its loops left standing, each file reads alone, and the
names are the library's own, so that an encoding and its reference have the same path: `scores/alibi.py` is checked
against `oracle/scores/alibi.py`. The library never imports this package, and this package imports NumPy only: the two
share no code, so a slip in the code of one is not repeated in the other.

Read in this order, each file answers a question that the one before leaves open.

1. `none`                     attention with no encoding and no causal mask cannot tell two orders of the tokens apart
2. `embeddings.integer`       add the position itself: unique, but it outgrows the embedding it is added to
3. `embeddings.normalized`    divide by the length: small, but one position has another code at every length
4. `embeddings.binary`        write the position in bits: bounded and the same at every length, but it jumps
5. `embeddings.sinusoidal`    replace each bit by a smooth wave: a shift of position becomes a rotation
6. `embeddings.learned`       or learn one row per position, and have none beyond the last row
7. `queries_keys.rope`        rotate queries and keys instead of adding: scores then know distances only
8. `scores.alibi`             or say it to the scores directly: the further away, the lower
9. `dot_product_attention`    where all of this ends up: softmax(scale q k + bias) v

Positions are numbers, integers or not, of shape (seq,) or (batch, seq). `p` is a position, `i` is the position of a
query and `j` that of a key. `inv_freq` is in radians per token. Arrays come first, everything else goes by keyword.
"""
