"""The commands of `papyrax`, one module each; `papyrax.train.cli` lists and runs them."""
