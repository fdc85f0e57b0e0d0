"""Softmax attention against other libraries on this machine; the same as `papyrax bench attention`.

    python benchmarks/attention.py [--tokens N ...] [--heads N] [--dim N] [--causal] [--out FILE]

`papyrax bench --help` says what it takes.
"""

import sys

from papyrax.train.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "attention", *sys.argv[1:]]))
