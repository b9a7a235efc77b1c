"""An embedded platform: WireServer, host plugin, IMDS and blob store for tests and demos."""
