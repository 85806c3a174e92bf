"""Where examples come from. The next source of data goes here."""
