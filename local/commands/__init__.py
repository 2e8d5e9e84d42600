"""The verbs of `byoa`, one module for those that belong together: `add` declares, `run` does."""
