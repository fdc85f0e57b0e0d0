"""Second-order information about a loss: products, diagonals, traces and spectra."""
