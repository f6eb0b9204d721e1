"""Plants the bugs of tests/mutations.toml, one at a time, in a copy of the tree, and looks whether their tests see them.

    mutate.py --check          every mutation still fits the code, and tests/GUIDE.md is made of this list
    mutate.py --table          prints tests/GUIDE.md
    mutate.py [NAME ...]       plants all, or these, and says what caught them
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib


ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = ROOT / "tests/mutations.toml"
GUIDE = ROOT / "tests/GUIDE.md"
# A build of its own: fast to make rather than fast to run, and without engines, which no mutation is about.
BUILD = {"CARGO_PROFILE_DEV_OPT_LEVEL": "1", "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_INCREMENTAL": "1"}

HEAD = """# The error-handling guide, chapter by chapter

Where each heading of the guide lives in the code, the test that shows it, and a bug (`tests/mutations.toml`) that makes
that test fail when it is planted. `./dev mutants` plants them all; this page is made by
`tests/tools/mutate.py --table`, and `./dev test` holds it against the list.

| heading | code | test | planted bug |
|---|---|---|---|
"""

BUGS = """
Bugs that the simulation must catch, one at a time, within so many seeds, or else a test:

| what must hold | planted bug | seeds or test |
|---|---|---|
"""


TESTED = """
Bugs that a test of their own must catch:

| what must hold | test | planted bug |
|---|---|---|
"""


def mutations():
    with LIST.open("rb") as file:
        return tomllib.load(file)["mutation"]


def edits(mutation):
    """File, from, to: one or two of them."""
    yield mutation["file"], mutation["from"], mutation["to"]
    if "also_file" in mutation:
        yield mutation["also_file"], mutation["also_from"], mutation["also_to"]


def table():
    test = lambda m: f"`{m['test']}`" if "test" in m else "the simulation"
    row = lambda m: f"| {m['heading']} | {m['code']} | {test(m)} | `{m['name']}` |\n"
    all_of_them = mutations()
    text = HEAD + "".join(row(m) for m in all_of_them if "heading" in m)
    seeded = "".join(
        f"| {m['code']} | `{m['name']}` | {m['seeds']} |\n" for m in all_of_them if "heading" not in m and "seeds" in m
    )
    tested = "".join(
        f"| {m['code']} | {test(m)} | `{m['name']}` |\n" for m in all_of_them if "heading" not in m and "test" in m
    )
    return text + BUGS + seeded + TESTED + tested


def check():
    """What no longer fits, one line each."""
    wrong = []
    for mutation in mutations():
        for file, before, _ in edits(mutation):
            count = (ROOT / file).read_text().count(before)
            if count != 1:
                wrong.append(f"{mutation['name']}: its text stands {count} times in {file}")
        if "test" in mutation:
            sources = [p for crate in ("shared", "sync", "appliance", "tests") for p in (ROOT / crate).rglob("*.rs")]
            if not any(f"fn {mutation['test']}" in p.read_text() for p in sources):
                wrong.append(f"{mutation['name']}: there is no test {mutation['test']}")
    if not GUIDE.exists() or GUIDE.read_text() != table():
        wrong.append("tests/GUIDE.md is not made of tests/mutations.toml: tests/tools/mutate.py --table > tests/GUIDE.md")
    return wrong


def run(command, tree, target):
    environment = {**os.environ, **BUILD, "CARGO_TARGET_DIR": str(target)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def cargo(mutation, *, build):
    common = ["--workspace", "--no-default-features", "--quiet", "--locked"]
    if "seeds" in mutation:
        if build:
            return ["cargo", "build", *common, "--bin", "sim"]
        return ["target-sim", "--seeds", str(mutation["seeds"]), "--first"]
    package = ["-p", mutation["package"]]
    command = ["cargo", "test", "--no-default-features", "--quiet", "--locked", *package]
    command += ["--test", "simulation"] if mutation["package"] == "tests" else ["--lib"]
    return command + (["--no-run"] if build else ["--", mutation["test"]])


def judge(mutation, tree, target):
    """Whether the mutation was caught, and how."""
    built = run(cargo(mutation, build=True), tree, target)
    if built.returncode != 0:
        return None, built.stderr[-2000:]
    command = cargo(mutation, build=False)
    if command[0] == "target-sim":
        command[0] = str(target / "debug/sim")
    went = run(command, tree, target)
    if "seeds" in mutation:
        return went.returncode != 0, went.stdout.strip().splitlines()[0][:150]
    said = went.stdout + went.stderr
    if "running 0 tests" in said and "running 1 test" not in said:
        return None, "its test did not run"
    return went.returncode != 0, "its test fails" if went.returncode != 0 else "its test passes"


def copy(tree):
    """Brings the copy up to date; what has not changed keeps its date, so that it is not built again."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for there in [path for path in tree.rglob("*") if path.is_file()]:
        if str(there.relative_to(tree)) not in names:
            there.unlink()
    for name in sorted(names):
        source, there = ROOT / name, tree / name
        if not there.exists() or there.read_bytes() != source.read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, there)


def plant(names, target):
    tree = target / "tree"
    chosen = [m for m in mutations() if not names or m["name"] in names]
    unknown = set(names) - {m["name"] for m in chosen}
    if unknown:
        sys.exit(f"there is no mutation called {', '.join(sorted(unknown))}")
    copy(tree)
    survived = []
    for mutation in chosen:
        began = time.monotonic()
        before = {file: (tree / file).read_text() for file, _, _ in edits(mutation)}
        try:
            for file, old, new in edits(mutation):
                (tree / file).write_text((tree / file).read_text().replace(old, new))
            caught, how = judge(mutation, tree, target / "build")
        finally:
            for file, text in before.items():
                (tree / file).write_text(text)
        verdict = {True: "caught", False: "SURVIVED", None: "NOT BUILT"}[caught]
        print(f"{verdict:<10} {mutation['name']:<40} {time.monotonic() - began:5.0f} s  {how}", flush=True)
        if caught is not True:
            survived.append(mutation["name"])
    print(f"{len(chosen) - len(survived)} of {len(chosen)} planted bugs are caught")
    return 1 if survived else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target/mutants")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table())
        return 0
    if arguments.check:
        wrong = check()
        print("\n".join(wrong) or "every planted bug fits the code")
        return 1 if wrong else 0
    return plant(arguments.names, arguments.target)


sys.exit(main())
