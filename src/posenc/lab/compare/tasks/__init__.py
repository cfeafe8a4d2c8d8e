"""One task a file: what a model learns, and what is measured at the trained size and past it."""
