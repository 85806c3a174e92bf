"""What a study can be made of: the networks with their sizes, and the data sets with how to get them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from study.settings.data import DataSettings

TABLES = {"cifar": (10, 100), "imagenet": (1000,)}
"""The class counts the paper reports parameters for, by stem."""


PARAMETERS = {
    "irevnet": (6_269_696, 512),
    "irevnet302": (122_047_356, 3_072),
    "resnet32": (463_504, 64),
    "resnet50": (23_500_352, 2_048),
    "resnet101": (42_492_480, 2_048),
    "resnet110": (1_727_312, 64),
    "resnet152": (58_136_128, 2_048),
    "resnet164": (1_700_688, 256),
    "revnet38": (463_760, 112),
    "revnet56": (24_224_128, 3_328),
    "revnet104": (42_099_072, 3_328),
    "revnet110": (1_727_904, 128),
    "revnet164": (1_743_648, 512),
    "revvit_small": (21_665_664, 768),
    "revvit_base": (85_798_656, 1_536),
}
"""Of each preset: parameters without the classifier, and features that are classified, as `count_parameters`
finds them. They stand here because counting builds every network, which takes PyTorch and seconds."""


def count_parameters(name: str) -> tuple[int, int]:
    """Return a preset's parameters without its classifier, and the number of features that it classifies.

    The network is built on torch's meta device, so nothing is allocated.
    """
    import torch

    from revmodels import create_model

    with torch.device("meta"):
        model = create_model(name, num_classes=1)
    *_, classifier = (part for part in model.head.modules() if isinstance(part, torch.nn.Linear))
    # The classifier of one class has a weight for each feature, and a bias.
    without = sum(p.numel() for p in model.parameters()) - classifier.in_features - 1
    return without, classifier.in_features


def model_rows(pattern: str = "*") -> list[dict[str, Any]]:
    """Return one row per preset that matches a shell pattern, with parameters at the paper's class counts.

    A language model has no classes: its parameters are those at the preset's vocabulary, with and without
    the embedding of tokens and the output layer.

    Nothing is built, but for a preset that `PARAMETERS` does not have.

    Raises:
        StudyError: No preset matches; the message names the nearest.
    """
    from revmodels.models.catalog import PRESETS, list_models
    from revmodels.models.decoder import LanguageArchitecture
    from revmodels.strategies.registry import usable_strategies
    from study.errors import StudyError, nearest

    names = list_models(pattern)
    if not names:
        raise StudyError(
            value=pattern, rule="must match a model's name", remedy=nearest(pattern, list_models())
        )
    rows = []
    for name in names:
        architecture = PRESETS[name]
        language = architecture.parameters() if isinstance(architecture, LanguageArchitecture) else None
        # A class is a weight for each feature that is classified, and a bias.
        without, features = (0, 0) if language else PARAMETERS.get(name) or count_parameters(name)
        counts = {classes: without + classes * (features + 1) for classes in (10, 100, 1000)}
        shown = TABLES.get(architecture.stem, ())
        rows.append(
            {
                "model": name,
                "family": architecture.family,
                "block": architecture.block,
                "depth": architecture.depth,
                "stem": architecture.stem,
                **{
                    f"parameters_{classes}": counts[classes] if classes in shown else None
                    for classes in (10, 100, 1000)
                },
                "parameters": language.total if language else None,
                "parameters_non_embedding": language.non_embedding if language else None,
                "strategies": ", ".join(usable_strategies(invertible=architecture.is_reversible)),
            }
        )
    return rows


def dataset_rows() -> list[dict[str, Any]]:
    """One row per data set: what it is, whether it can be used now, and what to do if not."""
    from study.data.fingerprint import CIFAR_FOLDERS, cifar_parquet, data_root

    root = data_root(DataSettings())
    rows = [
        _row("digits", "1,797 real 8×8 grey images of ten digits", at_hand=bool(find_spec("sklearn"))),
        _row(
            "synthetic", "random images, for memory and speed alone; synthetic:CxHxWxK sets sizes and classes"
        ),
    ]
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        rows.append(
            _row(
                name,
                f"60,000 color images of 32×32 pixels, {classes} classes",
                at_hand=(root / CIFAR_FOLDERS[name]).is_dir()
                or cifar_parquet(DataSettings(name=name)) is not None,
                get=f"set data.download: true, or data.root (or REVSTUDY_DATA, now {root}) to where it is, "
                f"unpacked, or as Parquet in a folder {name}",
            )
        )
    rows.append(
        _row(
            "imagenet",
            "1.28 million color images, 1,000 classes",
            at_hand=any((f / "train").is_dir() and (f / "val").is_dir() for f in (root / "imagenet", root)),
            get=f"unpack train/ and val/ from image-net.org under {root} (data.root or REVSTUDY_DATA)",
        )
    )
    rows.append(
        _row("parquet:DIR", "your own Parquet files in Hugging Face's layout: img or image, and label")
    )
    rows.append(_row("folder:DIR", "your own images: DIR/train/CLASS and DIR/test/CLASS"))
    rows.append(
        _row(
            "hf:NAME",
            "images that Hugging Face's datasets can load: a folder that it saved, or NAME of its hub",
            at_hand=bool(find_spec("datasets")),
            get="pip install 'revstudy[data]'",
        )
    )
    own = _row("MODULE:FUNCTION", "data sets of your own, see the guide")
    return [*rows, *text_rows(), own]


def text_rows() -> list[dict[str, Any]]:
    """One row per kind of text."""
    from pathlib import Path
    from sysconfig import get_path

    return [
        _row(
            "stdlib",
            "the Python files of the running Python's library, some 12 MB of text",
            at_hand=Path(get_path("stdlib"), "argparse.py").is_file(),
            get="use a Python whose library is there as files",
        ),
        _row("text:PATH", "your own text: a file, a folder of files, or Parquet or JSON lines with text"),
        _row("tokens:PATH", "your own token ids: train, val and test as .bin or .npy, or one file"),
        _row("markov:ORDER", "draws from a random source of known entropy, of order 1 to 4"),
    ]


def _row(name: str, what: str, *, at_hand: bool = True, get: str = "") -> dict[str, Any]:
    return {"data": name, "what": what, "at_hand": at_hand, "to_get": "" if at_hand else get}
