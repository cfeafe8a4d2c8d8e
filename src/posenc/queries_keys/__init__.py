"""Place 2: queries and keys are turned by their positions before they meet."""
