"""What traces look like to a person."""
