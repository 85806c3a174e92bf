"""The reversible engine: backpropagation that rebuilds the streams unit by unit, in eager mode."""
