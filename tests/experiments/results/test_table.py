import csv
import io

from experiments.results.table import Table, grid


def test_the_three_forms_hold_the_same_cells():
    columns, cells = ("method", "source", "a_b", "avg"), ("erm", "here", "50.0 (1)", "")
    table = Table("Accuracy in %", columns, [cells])
    assert list(csv.reader(io.StringIO(table.csv()))) == [list(columns), list(cells)]
    assert table.markdown() == (
        "Accuracy in %\n\n"
        "| method | source | a_b | avg |\n|---|---|---|---|\n| erm | here | 50.0 (1) |  |\n"
    )
    latex = table.latex()
    assert r"\caption{Accuracy in \%}" in latex and r"\begin{tabular}{llcc}" in latex
    assert r"erm & here & 50.0 (1) &  \\" in latex
    assert r"method & source & a\_b & avg \\" in latex
    assert latex.count(r"\toprule") == latex.count(r"\end{table}") == 1


def test_names_of_all_kinds_come_out_as_they_are():
    table = Table("", ("method", "source", "a^b~{c}$\\"), [("[x]|y", "here", "50.0 (1)")])
    assert r"| [x]\|y | here | 50.0 (1) |" in table.markdown()
    latex = table.latex()
    assert r"{[}x{]}|y & here &" in latex
    assert r"a\textasciicircum{}b\textasciitilde{}\{c\}\$\textbackslash{}" in latex


def test_a_rule_says_where_a_column_stands():
    assert grid(["a", "b"], [["x", "1"]], ["---", "---:"]) == (
        "| a | b |\n|---|---:|\n| x | 1 |"
    )
