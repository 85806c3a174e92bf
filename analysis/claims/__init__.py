"""The testable claims of the RevNet paper, each judged from the rows of a store."""
