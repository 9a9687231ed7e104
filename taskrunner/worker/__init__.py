"""The consuming side: one role per file, each of which sees values and the store, and no feature by name."""
