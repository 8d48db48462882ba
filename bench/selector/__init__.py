"""Compare the selector with its baselines on a measured history, in clean nested splits."""
