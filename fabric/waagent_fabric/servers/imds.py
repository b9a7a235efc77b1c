"""The instance metadata service (wireserver §20)."""

from __future__ import annotations

import json
from typing import Any

from waagent_fabric.records import VirtualMachine
from waagent_fabric.servers.base import Answer, Exchange
from waagent_fabric.state import Platform

BANNER = "IMDS/150.870.65.1854"
API_VERSIONS = (
    "2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01",
    "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01",
    "2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01",
    "2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15",
    "2025-04-07",
)  # fmt: skip


def instance_document(vm: VirtualMachine, api_version: str, extended: bool) -> dict[str, Any]:
    """Return the instance document as *api_version* shows it; versions compare as text."""
    compute: dict[str, Any] = {
        "location": vm.location,
        "name": vm.name,
        "offer": vm.offer,
        "osType": "Linux",
        "placementGroupId": "",
        "platformFaultDomain": "0",
        "platformUpdateDomain": "0",
        "publisher": vm.publisher,
        "resourceGroupName": vm.resource_group,
        "sku": vm.sku,
        "subscriptionId": vm.subscription_id,
        "tags": "",
        "version": vm.image_version,
        "vmId": vm.vm_id,
        "vmScaleSetName": "",
        "vmSize": vm.size,
        "zone": "",
    }
    if api_version >= "2018-04-02":
        compute["publicKeys"] = []
    if api_version >= "2020-07-15":
        compute["osProfile"] = {
            "adminUsername": "azureuser",
            "computerName": vm.name,
            "disablePasswordAuthentication": "true",
        }
    if api_version >= "2021-01-01":
        compute["userData"] = ""
    address = {"privateIpAddress": vm.private_address, "publicIpAddress": ""}
    subnet = {"address": vm.private_address.rpartition(".")[0] + ".0", "prefix": "24"}
    document: dict[str, Any] = {
        "compute": compute,
        "network": {
            "interface": [
                {
                    "ipv4": {"ipAddress": [address], "subnet": [subnet]},
                    "ipv6": {"ipAddress": []},
                    "macAddress": vm.mac_address,
                }
            ]
        },
    }
    if extended and api_version >= "2021-03-01":
        document["extended"] = {"compute": {"hasCustomData": False, "ppsType": "None"}}
    return document


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return *base* with *changes* laid over it: objects are merged, anything else replaced, ``None`` removes."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def _json(status: int, value: Any) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=utf-8"})


class Imds:
    """Answers requests to the metadata address."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request."""
        rule = "wireserver §20"
        if "x-forwarded-for" in exchange.headers:
            exchange.complain(rule, "X-Forwarded-For is set: the request went through a proxy")
            return _json(400, {"error": "Bad request. X-Forwarded-For header is not allowed"})
        if exchange.headers.get("metadata", "").lower() != "true":
            exchange.complain(rule, f"header Metadata is {exchange.headers.get('metadata')!r}, not 'true'")
            return _json(400, {"error": "Bad request. Required metadata header not specified"})
        if exchange.method != "GET":
            exchange.complain(rule, f"method {exchange.method}")
            return _json(405, {"error": "Method not allowed"})
        path = exchange.path.strip("/").lower()
        if path == "metadata/versions":
            return _json(200, {"apiVersions": list(API_VERSIONS)})
        version = exchange.query.get("api-version")
        if version not in API_VERSIONS:
            missing = "api-version was not specified in the request" if version is None else "api-version is invalid"
            message = f"Bad request. {missing}. For more information refer to aka.ms/azureimds"
            return _json(400, {"error": message, "newest-versions": list(API_VERSIONS[:-4:-1])})
        if path == "metadata/reprovisiondata":
            data = self._platform.reprovision_data
            return _json(404, {"error": "Not found"}) if data is None else Answer(200, data)
        parts = exchange.path.strip("/").split("/")
        if [part.lower() for part in parts[:2]] != ["metadata", "instance"]:
            return _json(404, {"error": "Not found"})
        return self._instance(exchange, parts[2:], version)

    def _instance(self, exchange: Exchange, parts: list[str], version: str) -> Answer:
        with self._platform.changed:
            overrides = self._platform.imds_overrides
            vm = self._platform.vm
        extended = exchange.query.get("extended", "").lower() == "true"
        value: Any = merge(instance_document(vm, version, extended), overrides)
        for part in parts:
            if isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
                continue
            found = {key.lower(): key for key in value} if isinstance(value, dict) else {}
            if part.lower() not in found:
                return _json(404, {"error": "Not found"})
            value = value[found[part.lower()]]
        if exchange.query.get("format", "json").lower() != "text":
            if isinstance(value, str):
                return _json(400, {"error": "Bad request. Format json is not supported for leaf values"})
            return _json(200, value)
        if isinstance(value, (dict, list)):
            names = list(value) if isinstance(value, dict) else [str(index) for index in range(len(value))]
            return Answer(200, "\n".join(names).encode(), {"Content-Type": "text/plain; charset=utf-8"})
        return Answer(200, str(value).encode(), {"Content-Type": "text/plain; charset=utf-8"})
