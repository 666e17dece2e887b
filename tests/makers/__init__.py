"""What several test files make: networks, worlds, people, trials, a browser."""
