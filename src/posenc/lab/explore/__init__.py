"""`posenc explore`: a page with controls for the parameters of RoPE that shows the effect of each."""
