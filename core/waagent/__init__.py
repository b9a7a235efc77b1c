"""waagent: a guest agent for virtual machines on Azure; the public API for plugin authors."""
