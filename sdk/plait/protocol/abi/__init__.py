"""ABI and bytecode of each contract as JSON, written by `make gen`; edits here are overwritten."""
