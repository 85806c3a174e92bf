"""The command line. Nothing imports it: a new verb goes to the file of its family and is registered there."""
