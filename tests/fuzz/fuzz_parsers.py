"""Fuzzes every parser of packet bytes: `python -m tests.fuzz.fuzz_parsers --seconds 30 [TARGET ...]`.

Owns: building tests/cy/probe_fuzz.pyx with its driver under AddressSanitizer
and UBSan (clang with libFuzzer, which follows coverage; gcc with the driver's
own loop where there is no clang), running each target, keeping its corpus.
Never: judges; the entries abort when a promise is broken.
Invariant: exits with 1 when there is a finding, and says where the input lies.
Move it to tests/fuzz/regress/<target>-<hash>: the unit tests replay that folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.fuzz.inputs import seeds

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
REGRESS = HERE / "regress"
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-g",
    "-O1",
    "-fno-strict-aliasing",
    "-w",
]
INCLUDES = [f"-I{sysconfig.get_paths()['include']}"]


def plain_environment() -> dict[str, str]:
    """Without the sanitizer this process may have been started under: compilers and targets bring their own."""
    return {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")}


def target_environment() -> dict[str, str]:
    return plain_environment() | {
        "PYTHONHOME": sys.base_prefix,
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def generate(folder: Path) -> Path:
    source = folder / "probe_fuzz.c"
    directives = [
        f"-X{name}={value}"
        for name, value in (
            ("cdivision", "True"),
            ("boundscheck", "False"),
            ("wraparound", "False"),
            ("initializedcheck", "False"),
        )
    ]
    command = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        *directives,
        "--line-directives",
        "--module-name",
        "probe_fuzz",
        "-I",
        str(ROOT),
        "-o",
        str(source),
        str(ROOT / "tests/cy/probe_fuzz.pyx"),
    ]
    subprocess.run(command, check=True, cwd=ROOT, env=plain_environment())
    return source


def compile_entries(source: Path, clang: str | None) -> Path:
    """The entries as one object: each target links it with a driver of its own."""
    made = source.with_suffix(".o")
    compiler = [clang, "-fsanitize=fuzzer-no-link"] if clang else [os.environ.get("CC", "cc")]
    command = [*compiler, *SANITIZERS, *INCLUDES, f"-I{ROOT}", f"-I{source.parent}", "-c", str(source), "-o", str(made)]
    subprocess.run(command, check=True, env=plain_environment())
    return made


def link(target: str, entries: Path, clang: str | None) -> Path:
    program = entries.with_name(target)
    compiler = [clang, "-fsanitize=fuzzer"] if clang else [os.environ.get("CC", "cc"), "-DSTANDALONE"]
    library = sysconfig.get_config_var("LIBDIR")
    command = [
        *compiler,
        *SANITIZERS,
        *INCLUDES,
        f"-DTARGET=fuzz_{target}",
        str(HERE / "driver.c"),
        str(entries),
        f"-L{library}",
        f"-Wl,-rpath,{library}",
        f"-lpython{sysconfig.get_config_var('LDVERSION')}",
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True, env=plain_environment())
    return program


def write_seeds(target: str, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, data in seeds()[target].items():
        file = folder / name
        file.write_bytes(data)
        files.append(file)
    return [*files, *sorted(REGRESS.glob(f"{target}-*"))]


def run(target: str, program: Path, seconds: int, clang: str | None) -> int:
    folder = program.parent
    start = write_seeds(target, folder / "seeds" / target)
    corpus = folder / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    command = [str(program), str(seconds), *map(str, start)]
    if clang:
        command = [
            str(program),
            f"-max_total_time={seconds}",
            "-max_len=2048",
            "-timeout=1",
            "-print_final_stats=1",
            "-verbosity=0",
            f"-artifact_prefix={folder}/{target}-",
            str(corpus),
            str(folder / "seeds" / target),
        ]
        if any(REGRESS.glob(f"{target}-*")):
            command.append(str(REGRESS))
    print(f"-- {target}, {seconds} s, {'libFuzzer' if clang else 'mutations without coverage'}", flush=True)
    done = subprocess.run(command, env=target_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = done.stdout.decode(errors="replace").splitlines()
    told = [line for line in lines if line.startswith("stat::") or line.endswith("without a finding")]
    print("\n".join(lines[-200:] if done.returncode else told), flush=True)
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - seeds().keys():
        parser.error(f"no target {unknown.pop()!r}; there are {', '.join(seeds())}")
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    clang = shutil.which("clang")
    entries = compile_entries(generate(folder), clang)
    failed = []
    for target in chosen.targets or seeds():
        program = link(target, entries, clang)
        if run(target, program, chosen.seconds, clang):
            failed.append(target)
    if failed:
        print(f"findings in {', '.join(failed)}; the inputs lie in {folder}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
