"""Images of a folder as rows, and as what a source takes."""

import numpy as np
import pytest

from lightning_leep.ranking import ImageFolder, ImageToTensor

Image = pytest.importorskip("PIL.Image")


def test_image_folder(images):
    data = ImageFolder(images)
    assert data.classes == ["blue", "green", "red"]
    assert len(data) == 60
    assert {data[i][0].mode for i in range(60)} == {"RGB"}
    assert [data[i][1] for i in range(60)] == sorted([0, 1, 2] * 20)
    pixels = np.asarray(data[0][0])
    tensor = ImageToTensor(pixels.shape[0], (0.0,), (1.0,))(data[0][0])
    assert tensor.shape == (3, *(pixels.shape[0],) * 2)
    with pytest.raises(ValueError, match="must be a folder"):
        ImageFolder(images / "nowhere")
    with pytest.raises(ValueError, match="at least 2 subfolders"):
        ImageFolder(images / "red")
    with pytest.raises(ValueError, match="size"):
        ImageToTensor(0)


def test_square_image_of_that_size_only_changes_its_scale():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    tensor = ImageToTensor(5, (0.25, 0.5, 0.75), (0.5, 1.0, 2.0))(Image.fromarray(pixels))
    expected = (pixels / 255 - (0.25, 0.5, 0.75)) / (0.5, 1.0, 2.0)
    np.testing.assert_allclose(tensor.numpy(), expected.transpose(2, 0, 1), atol=1e-6)
