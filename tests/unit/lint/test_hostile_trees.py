"""Texts made to keep the lint busy: what is read in the farm's own process ends soon, whatever a commit holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 40
"""Each takes a few seconds at most; what is quadratic takes minutes."""
SIZE = 1 << 16

READ_PERL = """
from oscar_steps.lint.perl.calls import undefined_calls
from oscar_steps.lint.confine import Answer, Task
from oscar_steps.lint.perl.exports import lost_exports
from oscar_steps.lint.perl.functions import lost_functions
from oscar_steps.lint.perl.compile import judge_perl
from oscar_steps.lint.perl.starts import loads_of, starts_of
loads_of(file), starts_of(file)
task = Task("perl", file.path)
list(undefined_calls(Answer(task, "done", 0, (), ("undefined main gone",)), file, tree))
judge_perl(Answer(task, "done", 255, ("syntax error at ./hostile line 1, near x",), ()), tree)
lost_functions(Tree(folder / "none"), tree)
lost_exports(Tree(folder / "none"), tree)
"""
READ_MAKEFILE = """
from oscar_steps.lint.lists.leftout import left_out
from oscar_steps.lint.lists.names import check_lists
check_lists(tree)
left_out(Tree(folder / "none"), tree)
tree.is_built("scripts/gone")
"""


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("scripts/hostile", "a::"),
        ("scripts/hostile", "require A::B\n"),
        ("scripts/hostile", "use A::B\n"),
        ("scripts/hostile", "\n"),
        ("lib/OSCAR/Hostile.pm", "our @EXPORT = (\n"),
        ("lib/OSCAR/Hostile.pm", "our @EXPORT = qw(f{number});\n"),
        ("lib/OSCAR/Hostile.pm", "our @EXPORT = qw[\n"),
        ("lib/OSCAR/Hostile.pm", "@EXPORT = ( "),
        ("lib/OSCAR/Hostile.pm", "*{{"),
        ("lib/OSCAR/Hostile.pm", "defined ("),
        ("lib/OSCAR/Hostile.pm", "A::"),
        ("lib/OSCAR/Hostile.pm", "use A "),
        ("lib/OSCAR/Hostile.pm", "f{number}(); "),
        ("Makefile", "\tcd "),
        ("Makefile", "* "),
        ("Makefile", "*."),
        ("Makefile", "A{number}=x\n"),
        ("Makefile", "a=\\\n"),
        ("Makefile", "a "),
        ("Makefile.am", "a\\\n"),
        ("Makefile", "define a\n"),
        ("Makefile", ">"),
        ("Makefile", "> "),
    ],
)
def test_a_text_that_repeats_itself_is_read_at_once(tmp_path: Path, path: str, unit: str) -> None:
    (tmp_path / "none").mkdir()
    place = tmp_path / "tree" / path
    place.parent.mkdir(parents=True)
    begin = {".pm": "our @EXPORT = qw(one two three);\n", ".am": "A = "}.get(path[-3:], "#!/usr/bin/perl\n")
    text = begin + "".join(unit.format(number=n) for n in range(SIZE // len(unit)))
    place.write_text(text.removesuffix("\n"))
    script = f"""
from pathlib import Path
from oscar_steps.lint.tree import Tree
folder = Path({str(tmp_path)!r})
tree = Tree(folder / "tree")
file = tree.files[{path!r}]
{READ_MAKEFILE if path.startswith("Makefile") else READ_PERL}
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=SECONDS)
