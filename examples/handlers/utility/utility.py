#!/usr/bin/env python3
"""A handler in the style of the Python handlers of old: a utility library, and the agent loaded as a module.

Public settings: ``agentModule`` (a file to try before the usual places), ``agentLog`` (the agent's log).
"""

import json
import os
import subprocess
import sys
import time

import agentmodule

OPERATIONS = ("install", "uninstall", "update", "enable", "disable")


def run(command, given):
    """Return what *command* prints when it is given *given*."""
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True).stdout


class Handler:
    """What a handler knows of itself: its folders, its number, its settings."""

    def __init__(self):
        with open("HandlerEnvironment.json") as stream:
            self.folders = json.load(stream)[0]["handlerEnvironment"]
        # Without a manifest.xml the name of the directory tells who this is: <name>-<version>.
        self.name, self.version = os.path.basename(os.getcwd()).split("-")
        self.number = os.environ.get("ConfigSequenceNumber") or self._newest()  # noqa: SIM112
        self.public, self.protected = self._settings()

    def _newest(self):
        folder = self.folders["configFolder"]
        found = [name for name in os.listdir(folder) if name.endswith(".settings") and name[0].isdigit()]
        found.sort(key=lambda name: os.path.getmtime(os.path.join(folder, name)))
        return found[-1].split(".")[0]

    def _settings(self):
        path = os.path.join(self.folders["configFolder"], self.number + ".settings")
        if not os.path.exists(path) or os.path.getsize(path) == 0:
            return {}, {}
        with open(path) as stream:
            given = json.load(stream)["runtimeSettings"][0]["handlerSettings"]
        return given["publicSettings"] or {}, self._opened(given)

    def _opened(self, given):
        if not given["protectedSettings"]:
            return {}
        library = os.path.dirname(os.path.dirname(self.folders["configFolder"]))
        stem = os.path.join(library, given["protectedSettingsCertThumbprint"])
        sealed = run(["openssl", "base64", "-d", "-A"], given["protectedSettings"].encode())
        command = ["openssl", "cms", "-inform", "DER", "-decrypt", "-recip", stem + ".crt", "-inkey", stem + ".prv"]
        return json.loads(run(command, sealed))

    def was_done(self):
        """Return whether this number, or a later one, was executed."""
        if not os.path.exists("mrseq"):
            return False
        with open("mrseq") as stream:
            return int(self.number) <= int(stream.read())

    def report(self, status, code, message, parts):
        """Write the status file: written in place, as many handlers do."""
        items = [
            {"name": name, "status": "success", "code": 0, "formattedMessage": {"lang": "en-US", "message": text}}
            for name, text in parts
        ]
        body = {
            "name": self.name,
            "operation": "Enable",
            "status": status,
            "code": code,
            "formattedMessage": {"lang": "en-US", "message": message},
            "substatus": items,
        }
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with open(os.path.join(self.folders["statusFolder"], self.number + ".status"), "w") as stream:
            json.dump([{"version": 1.0, "timestampUTC": moment, "status": body}], stream)


def enable(handler):
    """Do the work of one number, once."""
    if handler.was_done():
        return
    with open("mrseq", "w") as stream:
        stream.write(handler.number)
    agent, refusals = agentmodule.load(handler.public.get("agentModule"))
    agent.LoggerInit(handler.public.get("agentLog", "/var/log/waagent.log"), "/dev/stdout")
    agent.Log("%s %s started to handle." % (handler.name, handler.version))
    parts = [("agent module", agent.__file__)] + [("refused", text) for text in refusals]
    handler.report("success", 0, "opened: " + ", ".join(sorted(handler.protected)), parts)


def main():
    """Run the operation that the command line names."""
    operation = sys.argv[1].lstrip("-/")
    if operation not in OPERATIONS:
        sys.exit(64)
    handler = Handler()
    with open(os.path.join(handler.folders["logFolder"], "utility.log"), "a") as stream:
        stream.write("%s %s\n" % (operation, handler.version))
    if operation == "enable":
        enable(handler)


if __name__ == "__main__":
    main()
