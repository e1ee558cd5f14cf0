# Everything a checkout needs. Each target installs what it needs into a virtual environment of its own.
PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check
LOWEST = pytorch-lightning==2.4.0 lightning==2.4.0 torchmetrics==1.7.0
# In the environment, so that it also holds for the builds that pip isolates.
export PIP_CONSTRAINT := constraints.txt
# A worker of pytest-xdist was once seen to end before its first test. That is an internal error of the runner (status 3),
# which says nothing about the tests, so the run is repeated. A failed test (status 1) is not.
TESTS = .venv-test/bin/python -m pytest -n 2 --dist worksteal
RUN_TESTS = $(TESTS) || { [ $$? -eq 3 ] && $(TESTS); }
export OMP_NUM_THREADS ?= 1

.PHONY: demo fast test docs wheel lowest clean

demo: .venv/installed
	.venv/bin/python examples/finetune_digits.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install $(PIP_FLAGS) -e ".[demo]"
	touch $@

# For daily work: the tests without the slow ones and those of several processes, in an environment that is kept until its requirements change.
fast: .venv-dev/installed
	.venv-dev/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow and not distributed"

.venv-dev/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-dev
	.venv-dev/bin/python -m pip install $(PIP_FLAGS) -e ".[test]"
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

# The site, in build/site. It reads the sources without importing them, so that torch need not be installed.
docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

.venv-docs/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])' \
		| xargs .venv-docs/bin/python -m pip install $(PIP_FLAGS)
	touch $@

# The wheel, installed alone: no extra may be needed to import the library and to score.
wheel:
	rm -rf dist .venv-wheel
	.venv-test/bin/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install $(PIP_FLAGS) --no-compile dist/*.whl
	cd dist && ../.venv-wheel/bin/python ../.ci/wheel_check.py

# The oldest pytorch-lightning and torchmetrics that pyproject.toml admits, with the same torch. They want older
# versions of some dependencies than constraints.txt has. Only the tests of what depends on the two: the internals of
# Metric that metrics/additive.py lists (states, copies, merges, synchronisation, compute groups), the facts and hooks of
# the Trainer, the loggers, and one real run of each kind on two processes. Scores, options and figures do not.
OF_METRIC = $(addprefix tests/metrics/test_,contract.py contract_faults.py contract_states.py contract_sync.py \
	compute_groups.py collection.py contract_distributed.py::test_members_of_a_compute_group)
# Of additive scores, of rows that are kept and of samples of rows one each; the others share their bases.
KINDS_OF_METRIC = not (leave_one_out or eep_accuracy or h_score or log_me or linear_probe or nleep)
OF_TRAINER = $(addprefix tests/callbacks/,test_trainers.py test_hopeless.py test_faults.py fit/test_trainer_facts.py \
	fit/test_monitor.py fit/test_logs.py fit/test_resume.py source/test_training_data.py \
	test_processes.py) tests/layers/test_layer_transfer.py tests/tensorboard/test_writer.py
lowest:
	PIP_CONSTRAINT= .venv-test/bin/python -m pip install $(PIP_FLAGS) $(LOWEST)
	$(TESTS) -m "not slow and not browser" $(OF_METRIC) $(OF_TRAINER) -k "$(KINDS_OF_METRIC)"

clean:
	rm -rf .venv .venv-dev .venv-docs .venv-test .venv-wheel build dist
