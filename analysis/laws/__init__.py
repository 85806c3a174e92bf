"""Laws fitted to the rows of a store. The next law goes here."""
