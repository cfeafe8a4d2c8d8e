"""Print the census: ``python -m tools.census > docs/census.md``."""

from tools.census.census import as_markdown, census

print(as_markdown(list(census())), end="")
