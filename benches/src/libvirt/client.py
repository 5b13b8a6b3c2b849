"""A client of libvirt's, driven by lines on standard input: JSON in, JSON out.

Debian's Python binding, and with it libvirt's own client library, unmodified. Times are of this process alone,
from the call to its return, in microseconds."""

import json
import sys
import time

import libvirt

libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open(sys.argv[1])


def times(what, count):
    """How long each of `count` calls took."""
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        what()
        taken.append((time.perf_counter() - begun) * 1e6)
    return taken


def take(order):
    """Does what an order says."""
    count = order.get("count", 1)
    name = order.get("name")
    what = order["do"]
    if what == "version":
        return times(connection.getLibVersion, count)
    if what == "lookup":
        return times(lambda: connection.lookupByName(name), count)
    if what == "info":
        return times(connection.lookupByName(name).info, count)
    if what == "list":
        return times(connection.listAllDomains, count)
    if what == "refresh":
        return times(lambda: (connection.listAllDomains(), connection.getAllDomainStats()), count)
    if what == "statistics":
        return times(connection.getAllDomainStats, count)
    if what == "create":
        return times(lambda: connection.createXML(order["document"]), 1)
    if what == "destroy":
        return times(connection.lookupByName(name).destroy, 1)
    if what == "define":
        for document in order["documents"]:
            connection.defineXML(document)
        return []
    if what == "network_define":
        for document in order["documents"]:
            connection.networkDefineXML(document)
        return []
    if what == "network_start":
        return times(connection.networkLookupByName(name).create, 1)
    if what == "network_stop":
        return times(connection.networkLookupByName(name).destroy, 1)
    if what == "attach":
        domain = connection.lookupByName(name)
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        return times(lambda: domain.attachDeviceFlags(order["document"], live), 1)
    if what == "count":
        return [float(len(connection.listAllDomains()))]
    raise ValueError(what)


for line in sys.stdin:
    try:
        answer = {"times": take(json.loads(line))}
    except libvirt.libvirtError as error:
        answer = {"failed": str(error)}
    print(json.dumps(answer), flush=True)
