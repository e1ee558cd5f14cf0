import pytest

from tests._helpers.small_network import make_network, make_rows


@pytest.fixture
def data():
    return make_rows()


@pytest.fixture
def source():
    return make_network()
