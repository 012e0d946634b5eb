# The front door. Everything that is built lies in build/ and in the user's cache folder.
PYTHON := .venv/bin/python
VERSION ?= 1.0.0
STORY ?= update
JOBS ?= 2
FUZZ_SECONDS ?= 60
PANEL_PORT ?= 8900

.DEFAULT_GOAL := help
.PHONY: help setup host-packages image run stop demo panel panel-tools dms test test-fast fuzz bench-update manual lint lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

# `make run BUILDER=buildroot` (also image, demo, panel, test) takes kernel, boot loader and root file system from Buildroot:
# from the checkout that BUILDROOT names, else from the pinned release, which is fetched.
export BUILDER BUILDROOT

# Which board: `make run BOARD=…`. Each has folders of its own in build/.
export BOARD

setup: ## host packages (says which first) and the virtual environment
	@scripts/setup
	@$(if $(filter buildroot,$(BUILDER)),scripts/setup --packages scripts/buildroot/host-packages.txt)

host-packages: ## only the host packages; NO_INSTALL=1 lists what is missing
	@scripts/setup --packages

image: setup ## build ROM, kernel, root file system and disk (VERSION=1.0.0, PROD=1, BUILDER=buildroot)
	@$(PYTHON) -m scripts.image image --release $(VERSION) $(if $(PROD),--production)

run: setup ## boot the virtual board with a DMS beside it; the serial console is this terminal (BUILDER=buildroot)
	@$(PYTHON) -m scripts.lab run

stop: ## end a board and a DMS that `make run` left in the background
	@$(PYTHON) -m scripts.lab stop

demo: setup ## play a story without hands, each step with its time (STORY=update, safe-mode, factory-reset)
	@$(PYTHON) -m scripts.lab demo --story $(STORY)

panel: panel-tools ## the virtual board on a page: lamp, button, power, console, slots, faults, update (PANEL_PORT=8900)
	@$(PYTHON) -m scripts.panel --port $(PANEL_PORT)

panel-tools: setup # xterm.js, pinned by scripts/panel/package-lock.json, in the cache; npm only where there is none
	@command -v npm > /dev/null || scripts/setup --packages scripts/panel/host-packages.txt
	@$(PYTHON) -m scripts.panel.packages

dms: setup ## start a Device Management Server of your own on the loopback
	@$(PYTHON) -m scripts.lab dms

SHARED_OUT = -n $(JOBS) --dist loadgroup --no-loadscope-reorder

# The tests without a board are about the ordinary one, or about all of them in turn.
test: image panel-tools ## all tests, those on the virtual board included (JOBS=2 at a time; 0: one after the other)
	@$(PYTHON) -m pytest $(SHARED_OUT) $(if $(filter-out virt,$(BOARD)),tests/board) $(ARGS)

test-fast: panel-tools ## the tests that need no board
	@$(PYTHON) -m pytest $(SHARED_OUT) tests/unit tests/server $(ARGS)

fuzz: setup ## feed changed inputs to every parser of foreign bytes (FUZZ_SECONDS=60 for all together, TARGETS=names)
	@$(PYTHON) -c "import atheris" 2> /dev/null || \
		$(PYTHON) -m pip --disable-pip-version-check -q install --require-hashes --no-deps -r requirements/fuzz.txt
	@$(PYTHON) -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(TARGETS)

bench-update: setup ## measure updates by this engine and by others, half an hour (PAIRS=, ENGINES=)
	@scripts/setup --packages scripts/bench/host-packages.txt
	@$(PYTHON) -m scripts.bench $(if $(PAIRS),--pairs $(PAIRS)) $(if $(ENGINES),--engines $(ENGINES))

manual: setup ## write docs/commands.md anew from the declarations of the commands
	@$(PYTHON) -m scripts.manual

lint: setup ## ruff, mypy (strict), shellcheck
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@shellcheck -s sh scripts/setup scripts/board scripts/bundle scripts/provision scripts/symbols rootfs_overlay/etc/init.d/* rootfs_overlay/usr/sbin/* rootfs_overlay/usr/bin/* \
		rootfs_overlay/usr/share/udhcpc/default.script scripts/bench/prepare.sh \
		buildroot_external/board/common/hook buildroot_external/board/common/*.sh .ci/run

lock: ## write requirements/*.txt anew from requirements/*.in (needs the network)
	@$(PYTHON) -m pip -q install uv
	@for name in build host fuzz; do .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --no-emit-index-url requirements/$$name.in -o requirements/$$name.txt; done

clean: ## remove build/ (boards, demo keys, links); the cache stays
	@rm -rf build
