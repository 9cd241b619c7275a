"""Policy bundles, their store, and where judgement gets its policy from."""
