import pytest


@pytest.fixture(autouse=True)
def _rows_are_read_here(no_forks):
    """What a fit shows and keeps does not depend on who reads the rows that are scored."""
