"""Lets `python -m evor` run the command line."""

from evor.cli.main import entry

if __name__ == "__main__":
    entry()
