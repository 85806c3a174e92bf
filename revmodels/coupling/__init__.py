"""The reversible block: how two residual functions are coupled, and the fixed-point grid of exact coupling.

The next coupling goes here.
"""
