"""Installs the peers' programs and says what was had, in which version, and what was not."""

import json

from bench.peers import install

programs = install()
found = {name: [programs.versions[name], str(path)] for name, path in programs.paths.items()}
print(json.dumps({"installed": found, "unavailable": dict(programs.failures)}, indent=2))
