"""The suite for a machine with a GPU. It needs PyTorch, torchvision and pyarrow alone. See README.md."""
