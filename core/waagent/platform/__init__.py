"""The part that speaks the wire: everything the platform sends and is told; nothing else knows its formats."""
