"""What judges a credit: hiding tokens, and truth that is known by construction."""
