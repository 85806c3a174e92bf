"""How the backward pass gets its activations: one file each."""
