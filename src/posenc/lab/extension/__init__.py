"""Longer contexts for real models: checkpoints opened, rules measured, the best one written."""
