"""Folders of images, read with Pillow alone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_leep.utils.checks import check_size

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageFolder:
    """A data set of the images below a folder, one subfolder a class, as pairs of a Pillow image in RGB and a label.

    Classes are numbered in the order of their names; files that are hidden or not images are left out.

    Args:
        path: The folder.

    Raises:
        ModuleNotFoundError: If Pillow is not installed.
        ValueError: If there is no such folder, or it has fewer than 2 subfolders with images.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            import PIL  # noqa: F401
        except ImportError as error:
            raise ModuleNotFoundError("An image folder needs Pillow: `pip install pillow`.") from error
        root = Path(path).expanduser()  # a shell leaves the ~ in imagefolder:~/images
        if not root.is_dir():
            raise ValueError(f"`path` must be a folder with one subfolder of images for each class, got {str(path)!r}.")
        folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        found = {folder.name: [file for file in sorted(folder.rglob("*")) if _is_image(file)] for folder in folders}
        self.classes = [name for name, files in found.items() if files]
        if len(self.classes) < 2:
            raise ValueError(
                f"`path` must hold at least 2 subfolders with images, got {self.classes} in {str(path)!r}."
            )
        self.files = [(file, label) for label, name in enumerate(self.classes) for file in found[name]]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return an image and its label."""
        from PIL import Image

        file, label = self.files[index]
        with Image.open(file) as image:
            return image.convert("RGB"), label


class ImageToTensor:
    """Turns a Pillow image into a tensor ``[3, size, size]``: the whole image, scaled, with normalised channels.

    Args:
        size: Pixels of a side.
        mean: Mean of the channels, which are in 0..1; by default of ImageNet.
        std: Their standard deviation.
    """

    def __init__(self, size: int = 224, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        check_size("size", size)
        self.size = size
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Any) -> Tensor:
        """Return the tensor."""
        pixels = np.asarray(image.convert("RGB").resize((self.size, self.size), resample=2), dtype=np.float32)
        return (torch.from_numpy(pixels / 255).permute(2, 0, 1) - self.mean) / self.std  # [3, size, size]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
