"""Place 3: a bias is added to the attention scores."""
