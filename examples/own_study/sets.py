"""A data set of one's own: 569 tumors with 30 features each, malignant (1) or benign (0)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Tumors(Dataset):
    """Standardized features and the diagnosis."""

    num_classes = 2

    def __init__(self, features_NM: Tensor, malignant_N: Tensor) -> None:
        self.features_NM = features_NM
        self.malignant_N = malignant_N

    def __len__(self) -> int:
        return len(self.malignant_N)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.features_NM[row], self.malignant_N[row]


def load(*, test_share: float = 0.25) -> dict[str, Dataset]:
    """The two splits; the study keeps a part of the training set for validation."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    features_NM = torch.from_numpy(found.data).float()
    malignant_N = torch.from_numpy(1 - found.target).long()
    order_N = torch.randperm(len(malignant_N), generator=torch.Generator().manual_seed(0))
    count = round(test_share * len(order_N))
    test_N, train_N = order_N[:count], order_N[count:]
    mean_M, std_M = features_NM[train_N].mean(0), features_NM[train_N].std(0)
    features_NM = (features_NM - mean_M) / std_M
    return {
        "train": Tumors(features_NM[train_N], malignant_N[train_N]),
        "test": Tumors(features_NM[test_N], malignant_N[test_N]),
    }
