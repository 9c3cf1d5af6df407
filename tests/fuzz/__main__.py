"""`python -m tests.fuzz [TARGET …] [--seconds 600] [--corpus FOLDER]`: each target for that long, one after the other.

`calls` is the last of them: a live service, asked by schemathesis.

With atheris the inputs are guided by what they reach in journal/; without it they are the mutations of the ordinary
suite, without end. What breaks a target is written into the corpus as crash-…, and is a seed from then on.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from random import Random

SEED = 6


def main() -> int:
    """Each target in a process of its own: libFuzzer ends the one that it is in."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        return _guided(asked.targets[0], asked.seconds, asked.corpus)
    from tests.fuzz.run import TARGETS

    if asked.targets == ["calls"]:
        return 0 if _ask(asked.seconds) else 1
    if unknown := set(asked.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    broken = [name for name in asked.targets or TARGETS if not _run(name, asked.seconds, asked.corpus)]
    if not asked.targets and not _ask(asked.seconds):
        broken.append("calls")
    print(f"broken: {', '.join(broken)}" if broken else "none broke")
    return len(broken)


def _run(name: str, seconds: int, corpus: Path) -> bool:
    print(f"{name}: {seconds} s", flush=True)
    if find_spec("atheris") is None:
        return _unguided(name, seconds)
    words = [sys.executable, "-m", "tests.fuzz", name, "--here", "--seconds", str(seconds), "--corpus", str(corpus)]
    return subprocess.run(words, check=False).returncode == 0


def _ask(seconds: int) -> bool:
    """All calls of a live service, by schemathesis."""
    print(f"calls: {seconds} s", flush=True)
    words = [sys.executable, "-m", "pytest", "tests/acceptance/test_schemathesis.py"]
    return (
        subprocess.run(words, check=False, env=os.environ | {"JOURNAL_TEST_SCHEMATHESIS": str(seconds)}).returncode == 0
    )


def _unguided(name: str, seconds: int) -> bool:
    from tests.fuzz.run import TARGETS, run

    deadline, seed = time.monotonic() + seconds, SEED
    while time.monotonic() < deadline:
        run(TARGETS[name], Random(seed), 1000)
        seed += 1
    print(f"{name}: {1000 * (seed - SEED)} inputs", flush=True)
    return True


def _guided(name: str, seconds: int, corpus: Path) -> int:
    import atheris

    with atheris.instrument_imports(include=["journal"]):
        from tests.fuzz.run import INPUT_S, TARGETS
    target = TARGETS[name]
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(target.seeds):
        (folder / f"seed-{place}").write_bytes(seed)
    words = corpus / f"{name}.words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
    flags = [
        f"-max_total_time={seconds}", f"-max_len={target.longest}", f"-timeout={INPUT_S:.0f}", f"-seed={SEED}",
        f"-dict={words}", f"-artifact_prefix={folder}{os.sep}", "-print_final_stats=1", "-rss_limit_mb=2048",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(folder)], target.check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
