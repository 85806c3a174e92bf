"""The reversible engine under `torch.compile`: the same in one graph."""
