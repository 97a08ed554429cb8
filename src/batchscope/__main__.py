"""``python -m batchscope``: the command line, wherever the package stands."""

from batchscope.cli import main

main()
