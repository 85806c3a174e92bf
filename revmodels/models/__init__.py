"""Networks by name, and what they are made of. The next network goes here."""
