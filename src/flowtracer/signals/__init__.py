"""What strategies of credit need out of a model, over sampled token ids."""
