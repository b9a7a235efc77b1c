"""The extension policy: a file by which the owner of a machine decides which extensions it accepts (extensions §15)."""
