"""One operation of one distribution, swapped without a fork: Acme registers names with a tool of its own."""

from waagent import hookimpl


@hookimpl
def publish_hostname(agent, hostname):
    """Tell Acme's registry the name; where its tool fails, Debian's own way is tried next."""
    agent.run(("/usr/bin/acme-register", hostname), check=True)
    return True
