"""Print the size of files and functions against the style budget.

    python scripts/sizes.py [--strict] [FOLDER ...]

Code lines are lines that hold code: no blank line, comment or docstring. The budget: functions of at most 60
code lines (median at most 8, nine in ten at most 25), at most 5 arguments, files of at most 400 lines. With
``--strict`` a function over 60 code lines or a file over 400 lines gives exit code 1.
"""

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("src", "pipelines", "serving", "cluster", "benchmarks", "scripts")
MAX_FUNCTION, MAX_FILE, MAX_ARGUMENTS = 60, 400, 5
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


@dataclass(frozen=True)
class Function:
    """One function: where it stands, its code lines, its arguments without ``self``."""

    place: str
    lines: int
    arguments: int


@dataclass(frozen=True)
class File:
    """One file: its lines in all, its code lines, its functions."""

    path: Path
    lines: int
    code: int
    functions: tuple[Function, ...]


def measure(path: Path) -> File:
    """The sizes in one Python file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, str(path))
    code = code_lines(text) - docstring_lines(tree)
    found = tuple(function(path, node, code) for node in functions(tree))
    return File(path, len(text.splitlines()), len(code), found)


def code_lines(text: str) -> set[int]:
    """Numbers of the lines that hold code or a docstring."""
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            numbers.update(range(token.start[0], token.end[0] + 1))
    return numbers


def docstring_lines(tree: ast.AST) -> set[int]:
    """Numbers of the lines of bare strings: docstrings, and those below a constant."""
    numbers: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            numbers.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return numbers


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, also those within others."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def function(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef, code: set[int]) -> Function:
    """The sizes of one function."""
    own = code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return Function(
        f"{path}:{node.lineno} {node.name}", len(own), len([n for n in names if n not in ("self", "cls")])
    )


def report(files: list[File]) -> bool:
    """Print the figures; True when every file and function is within the hard limits."""
    found = sorted((f for file in files for f in file.functions), key=lambda f: -f.lines)
    if not found:
        print("sizes: no function found")
        return True
    lengths = [f.lines for f in found]
    tenth = statistics.quantiles(lengths, n=10)[-1] if len(lengths) > 1 else lengths[0]
    wide = [f for f in found if f.arguments > MAX_ARGUMENTS]
    print(
        f"sizes: {len(files)} files, {sum(f.code for f in files)} code lines, {len(found)} functions (code "
        f"lines: median {statistics.median(lengths):.0f}, nine in ten at most {tenth:.0f}, "
        f"longest {lengths[0]}); "
        f"{len(wide)} with more than {MAX_ARGUMENTS} arguments"
    )
    long_files = [file for file in files if file.lines > MAX_FILE]
    long_functions = [f for f in found if f.lines > MAX_FUNCTION]
    for file in long_files:
        print(f"  file over {MAX_FILE} lines: {file.path} ({file.lines})")
    for entry in long_functions:
        print(f"  function over {MAX_FUNCTION} code lines: {entry.place} ({entry.lines})")
    for entry in wide:
        print(f"  more than {MAX_ARGUMENTS} arguments: {entry.place} ({entry.arguments})")
    return not (long_files or long_functions)


def main() -> int:
    """Measure the folders given (or the project's own) and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="*", default=FOLDERS, metavar="FOLDER")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a hard limit is passed")
    options = parser.parse_args()
    paths = sorted(path for folder in options.folders for path in Path(folder).rglob("*.py"))
    kept = report([measure(path) for path in paths])
    return 0 if kept or not options.strict else 1


if __name__ == "__main__":
    sys.exit(main())
