"""The fixtures that test suites of plugins and distributions get."""
