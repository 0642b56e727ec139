"""Turn finished cells into figures, tests and the sentences that say what they mean."""
