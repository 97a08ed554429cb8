"""``python -m batchscope``: the command line, wherever the package is."""

from batchscope.cli.main import main

main()
