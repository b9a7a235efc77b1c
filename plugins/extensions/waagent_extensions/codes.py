"""The error numbers of extensions §13.2 and the error that carries one."""

from __future__ import annotations

from waagent import AgentError

UNKNOWN = -1
UNINSTALL_FAILED = 1000
DOWNLOAD_FAILED = 1001
MANIFEST_NOT_FOUND = 1002
MANIFEST_MALFORMED = 1003
PACKAGE_EXTRACTION_FAILED = 1005
INSTALL_FAILED = 1007
UPDATE_FAILED = 1008
ENABLE_FAILED = 1009
DISABLE_FAILED = 1010
TIMED_OUT = 1011
STATUS_INVALID = 1012
UNSUPPORTED_FEATURES = 2001


class HandlerError(AgentError):
    """Something that ends the work on one handler; others go on.

    Attributes:
        code: the number for the status blob (extensions §13.2).
        operation: the word for events: ``Download``, ``Install``, ``Enable`` … (extensions §20).
    """

    def __init__(self, message: str, code: int = UNKNOWN, operation: str = "ExtensionProcessing") -> None:
        super().__init__(message)
        self.code = code
        self.operation = operation
