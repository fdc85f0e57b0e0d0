"""Softmax attention against other libraries on this machine; the same as `papyrax bench attention`.

    python benchmarks/attention.py [--tokens N ...] [--dim N ...] [--heads N] [--causal]
        [--memory-at N ...] [--memory-limit GIB] [--out FILE]

`papyrax bench --help` says what it takes. Up to 32768 tokens, and heads of 128:

    python benchmarks/attention.py --tokens 1024 4096 16384 32768 --dim 64 128 --repeats 1
"""

import sys

from papyrax.train.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "attention", *sys.argv[1:]]))
