"""Extension handling: the platform's desired handlers are made true, and their status reported."""
