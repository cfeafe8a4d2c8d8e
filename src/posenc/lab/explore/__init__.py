"""`posenc explore`: one page that lets a reader turn the knobs of RoPE and see what each of them does."""
