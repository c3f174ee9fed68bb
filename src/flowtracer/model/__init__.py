"""A model: loaded, run, listened to, and made to speak."""
