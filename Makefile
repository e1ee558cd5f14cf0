# Everything a new checkout needs: `make demo` and `make test`. Both install into a virtual environment of their own.
PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check
LOWEST = pytorch-lightning==2.4.0 lightning==2.4.0 torchmetrics==1.7.0
# In the environment, so that it holds for the builds that pip isolates as well.
export PIP_CONSTRAINT := constraints.txt
# A worker of pytest-xdist was once seen to end before its first test. That is an internal error of the runner (status 3),
# which says nothing of the tests, so such a run is made again; a failed test (status 1) is not.
TESTS = .venv-test/bin/python -m pytest -n 2 --dist loadfile
RUN_TESTS = $(TESTS) || { [ $$? -eq 3 ] && $(TESTS); }
export OMP_NUM_THREADS ?= 1

.PHONY: demo test wheel lowest clean

demo: .venv/demo
	.venv/bin/python examples/finetune_digits.py

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install $(PIP_FLAGS) -e ".[demo]"
	touch $@

# A fresh environment each time, so that a missing dependency fails.
test:
	rm -rf .venv-test
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install $(PIP_FLAGS) -e ".[test]"
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	$(RUN_TESTS)

# The wheel, installed alone: no extra may be needed to import the library and to score.
wheel:
	rm -rf dist .venv-wheel
	.venv-test/bin/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install $(PIP_FLAGS) dist/*.whl
	cd dist && ../.venv-wheel/bin/python ../.ci/wheel_check.py

# The oldest pytorch-lightning and torchmetrics that pyproject.toml admits, against the same torch. They want older
# versions of some dependencies than constraints.txt has.
lowest:
	PIP_CONSTRAINT= .venv-test/bin/python -m pip install $(PIP_FLAGS) $(LOWEST)
	$(RUN_TESTS)

clean:
	rm -rf .venv .venv-test .venv-wheel dist
