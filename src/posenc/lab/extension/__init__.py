"""Longer contexts for real models: rules tried and measured, saved and trained."""
