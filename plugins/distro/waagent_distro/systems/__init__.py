"""One module per distribution that differs from ``linux``, under its os-release ``ID`` (spec/distro.md §4)."""
