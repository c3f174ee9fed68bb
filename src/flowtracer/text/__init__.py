"""Text, and where things stand in it: answers, steps, spans, and the characters of each token."""
