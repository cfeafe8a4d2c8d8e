"""The tasks, one in each file: what a model learns, and what is measured at the trained size and beyond."""
