"""What is learnt: a task opens the data, and says what is lost, what is measured and what a network is told.

`task` is the contract, `registry` finds a task by the settings of a trial, and each other file is one task:
`classification`. The training loop asks a task for batches, a loss and sums, and knows nothing of images,
labels or tokens. The next task is a file here, with a line in `registry`.
"""
