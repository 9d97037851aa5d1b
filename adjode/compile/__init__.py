"""All that knows Numba: how kernels, entries and callbacks are compiled, kept on disk and linked; and what they work on."""
