"""The platform's HTTP servers, one module each."""
