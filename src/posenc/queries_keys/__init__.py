"""Place 2: queries and keys are changed by their positions before their dot product."""
