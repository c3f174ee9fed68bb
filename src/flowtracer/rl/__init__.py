"""Credit inside trainers; each adapter is imported by name, so that no trainer loads unasked."""
