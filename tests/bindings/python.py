#!/usr/bin/env python3
"""What a program does with libvirt's Python binding: python.py URI KERNEL DIRECTORY

KERNEL is a guest that answers `mode=echo`, DIRECTORY one that pools may be in. It prints what it did; the first
failure ends it with a trace and status 1."""

import os
import sys
import threading
import time

import libvirt

URI, KERNEL, DIRECTORY = sys.argv[1:4]
NAME, POOL = "bindings-py", "bindings-py-pool"
PATH = os.path.join(DIRECTORY, POOL)
errors = []


def told(kind):
    """Lets a document be printed too that is asked for: whoever runs this checks it."""
    ask = kind.XMLDesc

    def XMLDesc(self, flags=0):
        text = ask(self, flags)
        print(text, flush=True)
        return text

    kind.XMLDesc = XMLDesc


for kind in (libvirt.virDomain, libvirt.virStoragePool, libvirt.virStorageVol):
    told(kind)
libvirt.registerErrorHandler(lambda _context, error: errors.append(error), None)


def did(what, *values):
    print(what, *values, flush=True)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, "not within %ds: %s" % (seconds, what))
        time.sleep(0.02)


def refused(call, code, what):
    try:
        call()
    except libvirt.libvirtError as error:
        check(error.get_error_code() == code, "%s: code %d: %s" % (what, error.get_error_code(), error))
        did("refused:", what, "|", error.get_error_message())
    else:
        raise AssertionError(what + ": was not refused")


def xml(mode, extra=""):
    return f"""<domain type='kvm'><name>{NAME}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type><kernel>{KERNEL}</kernel><cmdline>mode={mode}</cmdline></os>
<features><acpi/><apic/></features>
<devices>{extra}<serial type='pty'/><console type='pty'/><memballoon model='virtio'/></devices></domain>"""


# The loop must be there before the connection is.
libvirt.virEventRegisterDefaultImpl()


def loop():
    while True:
        libvirt.virEventRunDefaultImpl()


threading.Thread(target=loop, daemon=True).start()

c = libvirt.open(URI)
did("connected:", c.getURI(), c.getType(), c.getVersion(), c.getLibVersion(), c.getHostname())
check(c.isAlive() and c.isEncrypted() == ("+tls:" in URI) and c.isSecure(), "alive, encrypted by TLS, secure")
closed = []
c.registerCloseCallback(lambda _c, reason, _o: closed.append(reason), None)
c.setKeepAlive(5, 3)
did("host:", c.getInfo(), "free", c.getFreeMemory(), "vcpus", c.getMaxVcpus("kvm"))
did("cpu stats:", c.getCPUStats(libvirt.VIR_NODE_CPU_STATS_ALL_CPUS), "memory:", c.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS))
check("<domain type='kvm'" in c.getCapabilities() or '<domain type="kvm"' in c.getCapabilities(), "kvm in capabilities")
check(c.getDomainCapabilities().startswith("<domainCapabilities"), "domain capabilities")

EVENTS = ["defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed"]
seen = []


def lifecycle(_conn, domain, event, detail, _opaque):
    if domain.name() == NAME:
        seen.append((EVENTS[event], detail))


lifecycle_id = c.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
pool_seen = []
pool_id = c.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, lambda _c, p, e, _d, _o: pool_seen.append(e), None)
others = [c.domainEventRegisterAny(None, event, lambda *a: None, None) for event in (
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR, libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE)]


def event(name, detail):
    until(lambda: (name, detail) in seen, "event %s %d; seen: %s" % (name, detail, seen))
    did("event:", name, detail)


# Domains
refused(lambda: c.lookupByName("no-such"), libvirt.VIR_ERR_NO_DOMAIN, "look up a domain that is not there")
refused(lambda: c.defineXML("<domain"), libvirt.VIR_ERR_XML_DETAIL, "define what is no XML")
d = c.defineXML(xml("echo"))
event("defined", 0)
check(d.name() == NAME and d.ID() == -1 and not d.isActive() and d.isPersistent(), "a defined domain")
check(c.lookupByUUIDString(d.UUIDString()).name() == NAME and c.lookupByUUID(d.UUID()).name() == NAME, "by uuid")
check(NAME in c.listDefinedDomains() and c.numOfDefinedDomains() >= 1, "listDefinedDomains")
d.create()
event("started", 0)
check(d.ID() > 0 and c.lookupByID(d.ID()).name() == NAME and d.ID() in c.listDomainsID(), "a running domain")
check(d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED], "state %s" % d.state())
state, most, memory, cpus, cpu_time = d.info()
did("info:", state, most, memory, cpus, cpu_time)
check((state, most, cpus) == (1, 65536, 1) and cpu_time >= 0, "info")
check((d.maxMemory(), d.maxVcpus(), d.vcpusFlags(), d.OSType()) == (65536, 1, 1, "hvm"), "maxMemory, maxVcpus, vcpusFlags, OSType")
did("vcpus:", d.vcpus(), d.vcpuPinInfo(), "cpu:", d.getCPUStats(True), "memory:", d.memoryStats())
did("job:", d.jobInfo()[0], d.jobStats(), "control:", d.controlInfo(), "autostart:", d.autostart())
text = d.XMLDesc()
check(f"id='{d.ID()}'" in text and "/dev/pts/" not in d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), "XML")
for record in c.getAllDomainStats():
    if record[0].name() == NAME:
        figures = record[1]
did("stats:", figures)
check(figures["state.state"] == 1 and figures["cpu.time"] >= 0 and figures["vcpu.maximum"] == 1 and figures["balloon.maximum"] == 65536, "stats")
check(len(c.domainListGetStats([d], libvirt.VIR_DOMAIN_STATS_STATE)) == 1, "stats of one")
refused(d.create, libvirt.VIR_ERR_OPERATION_INVALID, "start what runs")

# Console
s = c.newStream(libvirt.VIR_STREAM_NONBLOCK)
d.openConsole(None, s, 0)
said = bytearray()
gone = []


def readable(stream, events, _opaque):
    while True:
        data = stream.recv(4096)
        if data == -2:
            return
        if not data:
            gone.append(events)
            stream.eventRemoveCallback()
            return
        said.extend(data)


s.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR, readable, None)
# A guest that is still booting does not hear what is typed.
until(lambda: b"ready" in said, "the guest; said: %r" % bytes(said))
s.send(b"hello from python\r")
until(lambda: b"hello from python" in said, "echo; said: %r" % bytes(said))
did("console:", bytes(said))

d.suspend()
event("suspended", 0)
check(d.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER], "paused")
d.resume()
event("resumed", 0)
check(d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED], "unpaused")
d.setAutostart(1)
check(d.autostart() == 1, "autostart")
d.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "a title", None, None, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
check(d.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None, libvirt.VIR_DOMAIN_AFFECT_CONFIG) == "a title", "title")
d.reset()
did("reset")

# Pools and volumes
pool = c.storagePoolDefineXML(f"<pool type='dir'><name>{POOL}</name><target><path>{PATH}</path></target></pool>")
pool.build()
pool.create()
pool.refresh()
pool.setAutostart(1)
did("pool:", pool.info(), pool.UUIDString(), pool.isActive(), pool.isPersistent(), pool.autostart())
check(c.storagePoolLookupByName(POOL).UUIDString() == pool.UUIDString() and POOL in c.listStoragePools(), "the pool is listed")
check(c.storagePoolLookupByTargetPath(PATH).name() == POOL, "by target path")
volume = pool.createXML("<volume><name>v.raw</name><capacity unit='MiB'>4</capacity><allocation>0</allocation><target><format type='raw'/></target></volume>")
image = pool.createXML("<volume><name>v.qcow2</name><capacity unit='MiB'>64</capacity><allocation>0</allocation><target><format type='qcow2'/></target></volume>")
did("volumes:", pool.listVolumes(), volume.path(), volume.key(), volume.info(), image.info())
check(c.storageVolLookupByPath(volume.path()).name() == "v.raw" and c.storageVolLookupByKey(volume.key()).name() == "v.raw", "volume by path, key")
check(volume.storagePoolLookupByVolume().name() == POOL, "pool by volume")
content = os.urandom(1 << 20) * 3 + b"end"
up = c.newStream()
volume.upload(up, 512, len(content))
position = [0]


def source(_stream, count, _opaque):
    data = content[position[0]:position[0] + count]
    position[0] += len(data)
    return data


up.sendAll(source, None)
up.finish()
with open(volume.path(), "rb") as file:
    check(file.read()[512:512 + len(content)] == content, "what was uploaded")
down = c.newStream()
volume.download(down, 512, len(content))
back = bytearray()
down.recvAll(lambda _stream, data, _opaque: back.extend(data) or len(data), None)
down.finish()
check(bytes(back) == content, "what was downloaded: %d of %d" % (len(back), len(content)))
did("uploaded and downloaded:", len(content))
abort = c.newStream()
volume.download(abort, 0, 0)
abort.recv(1000)
abort.abort()
did("a download aborted")
volume.resize(8 << 20)
check(volume.info()[1] == 8 << 20, "resized: %s" % volume.info())
clone = pool.createXMLFrom("<volume><name>w.raw</name><capacity unit='MiB'>8</capacity><target><format type='raw'/></target></volume>", volume)
volume.wipe()

# A disk attached and detached while the domain is defined only, then its definition
disk = f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{image.path()}'/><target dev='vda' bus='virtio'/></disk>"
d.attachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG)
did("disk:", d.blockInfo("vda"), d.blockStats("vda"), d.blockStatsFlags("vda"))
check(d.blockInfo("vda")[0] == 64 << 20, "the disk's capacity")

# Bytes of what runs: nothing was written to the disk, and its command line is somewhere in its memory.
check(d.blockPeek("vda", 0, 512) == bytes(512), "the disk's first sector")
refused(lambda: d.blockPeek("vda", 64 << 20, 512), libvirt.VIR_ERR_INTERNAL_ERROR, "peek behind the disk's end")
pieces = (d.memoryPeek(at, 65536, libvirt.VIR_MEMORY_PHYSICAL) for at in range(0, 64 << 20, 65536))
check(any(b"mode=echo" in piece for piece in pieces), "the guest's memory")

d.destroy()
event("stopped", 1)
until(lambda: gone, "the console's end")
did("console ended:", gone)
check(d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED], "destroyed: %s" % d.state())
d.detachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
check("<disk" not in d.XMLDesc(), "the disk is gone")
refused(d.destroy, libvirt.VIR_ERR_OPERATION_INVALID, "destroy what does not run")
for v in (clone, volume, image):
    v.delete()
check(pool.numOfVolumes() == 0, "no volumes are left")
pool.destroy()
pool.delete()
pool.undefine()
until(lambda: {0, 1, 2, 3} <= set(pool_seen), "pool events; seen: %s" % pool_seen)
did("pool events:", pool_seen)
d.undefine()
event("undefined", 0)
refused(lambda: c.lookupByName(NAME), libvirt.VIR_ERR_NO_DOMAIN, "look it up again")
# A transient one
t = c.createXML(xml("hold"))
check(not t.isPersistent() and t.isActive(), "transient")
t.destroy()
refused(lambda: c.lookupByUUIDString(t.UUIDString()), libvirt.VIR_ERR_NO_DOMAIN, "a transient one that was destroyed")
# Only looking
r = libvirt.openReadOnly(URI)
check(isinstance(r.listAllDomains(), list), "list, read only")
refused(lambda: r.defineXML(xml("hold")), libvirt.VIR_ERR_OPERATION_DENIED, "define, read only")
r.close()
for i in [lifecycle_id] + others:
    c.domainEventDeregisterAny(i)
c.storagePoolEventDeregisterAny(pool_id)
c.unregisterCloseCallback()
check(not closed, "the connection stayed: %s" % closed)
did("events:", seen)
did("closed:", c.close())
