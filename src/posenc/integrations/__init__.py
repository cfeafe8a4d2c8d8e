"""Other libraries, met half way."""
