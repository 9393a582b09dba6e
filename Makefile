# Two commands do everything on a fresh machine: make demo, make test. Each sets up what it needs and may be repeated.
PYTHON ?= python3
export PYTHON
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help setup demo test units test-all test-core lint format bench splits emoji latent vlmo talkers pages clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup:  ## make .venv with everything (says what it downloads)
	@scripts/setup.sh

demo: setup  ## the main job on real pictures: measure, adapt, evaluate, index, search; writes runs/demo/report.html
	@$(BIN)/tonggan demo

lint: setup  ## ruff and mypy (strict)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

test:  ## lint, types and the tests, at most 5 minutes on 2 cores
	@scripts/setup.sh browser
	@# Side by side: types take a minute where nothing is known of them yet, and tests wait now and then.
	@$(MAKE) --no-print-directory -j 2 lint units

units: setup  ## the tests alone, without those that are slow
	@# Two processes on two cores: two threads each would only get in each other's way.
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow"

test-all:  ## the slow tests too (kill -9, own data end to end, the tutorials), and the core installed alone
	@scripts/setup.sh browser
	OMP_NUM_THREADS=1 $(PYTEST) -m slow
	@$(MAKE) --no-print-directory test-core

test-core:  ## install the core alone and run embed, train, eval
	@scripts/test-core.sh

format: setup  ## format the code
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: setup  ## benchmarks side by side with peers (slow; needs a quiet machine)
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/pages.py

splits: setup  ## adapt to the stamps on five splits: mean and spread (slow)
	$(BIN)/python benchmarks/stamps_splits.py

emoji: setup  ## CLIP from scratch on emoji, an artist left out, beside its plain version (an hour, quiet machine)
	$(BIN)/python benchmarks/unseen_artist.py

latent: setup  ## data2vec on pictures and on speech, probed beside untrained models and raw input (80 minutes and the probes, quiet machine)
	$(BIN)/python benchmarks/latent.py

vlmo: setup  ## VLMo on stamps and emoji against plain CLIP of equal size and time (an hour, quiet machine)
	$(BIN)/python benchmarks/vlmo.py

talkers: setup  ## models that talk: chat, captions, Flamingo, speech, trained and measured (an hour and a half, quiet machine, espeak-ng)
	for name in looks-scenes chat-scenes captioner-pictures flamingo-scenes listener-scenes spoken-questions; do \
		$(BIN)/tonggan train $$name || exit 1; done
	$(BIN)/python benchmarks/talkers.py chat runs/chat-scenes
	$(BIN)/python benchmarks/talkers.py captioner runs/captioner-pictures
	$(BIN)/python benchmarks/talkers.py flamingo runs/flamingo-scenes
	$(BIN)/python benchmarks/talkers.py listener runs/listener-scenes
	$(BIN)/python benchmarks/talkers.py spoken runs/spoken-questions

pages: setup  ## write docs/comparison.md, its Chinese and the contact sheet docs/pages.jpg anew
	$(BIN)/python -m tonggan.compare.registry.pages docs
	$(BIN)/python scripts/contact_sheet.py docs/pages.jpg

clean:  ## remove the environments and build leftovers (runs/ is kept)
	rm -rf .venv .venv-core .mypy_cache .ruff_cache .hypothesis build dist
