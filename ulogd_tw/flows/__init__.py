"""Questions about stored flows, and the answers of stores."""
