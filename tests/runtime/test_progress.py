"""What is printed on the terminal."""

from rich.table import Table

from evor.runtime.progress import screen


def test_a_strangers_names_do_not_steer_the_terminal(capsys):
    name = "a\x1b]0;title\x07\x1b[2J\x9b31m\rb\tc"
    screen.print(name, soft_wrap=True)
    table = Table("what", name, title=name)
    table.add_row("data", name)
    screen.print(table)
    printed = capsys.readouterr().out
    assert printed.startswith("a\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\x0db")
    assert {character for character in printed if not character.isprintable()} <= {"\n", "\t"}
    assert printed.count("\\x1b[2J") >= 2
