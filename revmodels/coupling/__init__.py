"""The reversible block: how two residual functions are coupled, what they are given, and the exact grid.

From outside: `block.ReversibleBlock`, `linear.Coupling` and the functions that make one,
`context.StreamAlone` and `stage_entry.StageEntry`. The next coupling goes into the table of `linear`.
"""
