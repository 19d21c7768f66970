# make help lists the targets.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

VENV_HOME := /opt/govip
# Debian's Python first: the virtual environment must not depend on a developer's.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN := .venv/bin
APT := etcd-server etcd-client haproxy nftables iproute2 iputils-ping dbus openssl procps curl git \
       mmdebstrap systemd-container python3-venv go-md2man man-db rpm prometheus

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 17

.PHONY: install
install: ## install govipd on this machine (root)
	$(PYTHON) -m venv $(VENV_HOME)
	$(VENV_HOME)/bin/pip install --use-pep517 --quiet --disable-pip-version-check .
	install -d /usr/local/sbin /usr/local/bin /usr/local/lib/systemd/catalog /etc/govip /etc/sysctl.d /etc/sysusers.d \
		/etc/systemd/system
	ln -sf $(VENV_HOME)/bin/govipd /usr/local/sbin/govipd
	ln -sf $(VENV_HOME)/bin/govipctl /usr/local/bin/govipctl
	install -m 644 units/govipd@.service /etc/systemd/system/
	install -m 644 units/govip.sysusers.conf /etc/sysusers.d/govip.conf
	systemd-sysusers /etc/sysusers.d/govip.conf
	install -m 644 units/govipd.catalog /usr/local/lib/systemd/catalog/
	if [ -d /var/lib/systemd/catalog ]; then journalctl --update-catalog; fi
	install -m 644 conf/90-govip.sysctl.conf /etc/sysctl.d/90-govip.conf
	install -m 644 conf/haproxy-govip.cfg /etc/govip/haproxy-govip.cfg
	test -e /etc/govip/govip.toml || install -m 644 conf/govip.toml /etc/govip/govip.toml
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; sysctl -q -e -p /etc/sysctl.d/90-govip.conf; fi

.PHONY: uninstall
uninstall: ## remove it again; the configuration stays (root)
	if [ -d /run/systemd/system ]; then systemctl stop 'govipd@*'; systemctl -q disable govipd@.service || true; fi
	rm -rf $(VENV_HOME) /usr/local/sbin/govipd /usr/local/bin/govipctl
	rm -rf /var/lib/govipd
	rm -f /etc/systemd/system/govipd@.service /etc/sysctl.d/90-govip.conf /etc/sysusers.d/govip.conf \
		/usr/local/lib/systemd/catalog/govipd.catalog
	if [ -d /var/lib/systemd/catalog ]; then journalctl --update-catalog; fi
	if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

.PHONY: deps
deps: ## the Debian packages that tests and demo need (root)
	@if [ "$$(id -u)" != 0 ]; then echo "run this as root: the lab boots machines in namespaces" >&2; exit 1; fi
	# dpkg-query fails when it has never heard of one: that is what is asked.
	missing=$$( { dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(APT) 2>/dev/null || true; } \
		| awk '$$1 == "ii" {print $$2}' | sort | comm -13 - <(printf '%s\n' $(APT) | sort) | tr '\n' ' ')
	if [ -n "$$missing" ]; then
		echo "installing $$missing"
		apt-get update -qq
		# The daemons of these packages run inside the lab's machines, not on this one.
		policy=/usr/sbin/policy-rc.d
		if [ ! -e $$policy ]; then
			printf '#!/bin/sh\nexit 101\n' > $$policy
			chmod 755 $$policy
			trap "rm -f $$policy" EXIT
		fi
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing
	fi

.venv/stamp: pyproject.toml
	@$(PYTHON) -m venv .venv || { echo "no virtual environment: install python3-venv, or run make deps as root" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --editable . --group dev
	touch $@

.PHONY: venv
venv: .venv/stamp ## the virtual environment for tests and demo

.PHONY: ready
ready: deps .venv/stamp
.NOTPARALLEL:

.PHONY: lint
lint: venv ## ruff, its format, and the import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

.PHONY: types
types: venv ## mypy, strict
	$(BIN)/mypy

.PHONY: unit
unit: venv ## what needs no root, no etcd and no haproxy: core, fuzz, simulation (two minutes)
	$(BIN)/pytest tests/config tests/core tests/documents tests/runtime tests/ctl tests/fuzz tests/sim -m 'not root and not lab and not long'

# Percent of the adapters' lines and branches, without what only the lab's daemons run.
ADAPTERS_COVERED := 95
.PHONY: test
test: ready lint types ## everything: lint, types, core, adapters, lab (root, 20 minutes)
	$(BIN)/pytest --cov --cov-report=
	$(BIN)/coverage report --include='govipd/core/*' --fail-under=100 --skip-covered
	$(BIN)/coverage report --include='govipd/adapters/*' --fail-under=$(ADAPTERS_COVERED) --skip-covered

.PHONY: demo
demo: ready ## three machines, one VIP, and what can go wrong (root, 3 minutes)
	$(BIN)/python -m tests.lab.demo

.PHONY: demo-shell
demo-shell: ready ## the same three machines, for you to break (root)
	$(BIN)/python -m tests.lab shell

SEEDS ?= 3000
FIRST ?=
.PHONY: sim
sim: venv ## SEEDS hostile schedules in virtual time (from seed FIRST), and every mutation of the safety rules (10 minutes)
	$(BIN)/python -m tests.sim --seeds $(SEEDS) $(if $(FIRST),--first $(FIRST))

VERSION ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
DIST ?= dist
SUITES := bookworm trixie
.PHONY: packages
packages: ready ## .deb for Debian 12 and 13, and .rpm, in dist (root)
	export VERSION=$(VERSION) DIST=$(DIST) SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct)
	for suite in $(SUITES); do packaging/build $$suite; done

.PHONY: edges
edges: ready ## the lab scenarios that are too long for make test (root)
	$(BIN)/pytest tests/lab -m long -s

MINUTES ?= 30
SEED ?= 1
PACT ?= 0
LOAD ?= 0
.PHONY: soak
soak: ready ## random faults for MINUTES, from SEED; with a PACT of seconds, under LOAD processes, with GROUPS on two networks (root)
	$(BIN)/python -m tests.lab.soak --minutes $(MINUTES) --seed $(SEED) --pact $(PACT) --load $(LOAD) $(if $(GROUPS),--groups $(GROUPS))

QUICK ?=
.PHONY: bench
bench: ready ## govipd against keepalived and vip-manager, into docs/benchmarks; QUICK=1: in ten minutes (root)
	$(BIN)/python -m bench $(if $(QUICK),--quick)

.PHONY: bench-fence
bench-fence: ready ## how precisely the kernel ends a lease (root)
	$(BIN)/python -m bench.fence

TREE ?=
.PHONY: bench-renewals
bench-renewals: ready ## what renewing the fence costs the host; of the sources in TREE (root)
	$(BIN)/python -m bench.renewals $(if $(TREE),--tree $(TREE))

GROUPS ?=
.PHONY: bench-scale
bench-scale: ready ## what many VIP groups cost, into docs/benchmarks; GROUPS="1 16" (root)
	$(BIN)/python -m bench.scale $(GROUPS)

.PHONY: bench-probe
bench-probe: ready ## what a check of haproxy costs, and how often it would be wrong (root)
	$(BIN)/python -m bench.probe

.PHONY: release
release: ## print what a release of VERSION would do, and whether it may; changes nothing
	packaging/release $(VERSION)

.PHONY: clean
clean: ## remove what the targets above made here
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist
