"""A folder of images."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """20 images of each of three colours, of several sizes and kinds, in folders."""
    image_of = pytest.importorskip("PIL.Image").fromarray
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (root / name / "more").mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 120, (8 + i % 3, 8, 3), dtype=np.uint8)
            pixels[..., 2 - label] += 100
            image = image_of(pixels)
            folder = root / name / ("more" if i % 2 else "")
            (image.convert("RGBA") if i % 5 == 0 else image).save(folder / f"{i}.{'PNG' if i % 5 == 0 else 'bmp'}")
    (root / "red" / "notes.txt").write_text("not an image")
    (root / "red" / ".hidden.png").write_text("not an image")
    (root / "empty").mkdir()
    return root
